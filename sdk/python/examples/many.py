"""Draws the same prompt with several seeds at once on asyncio, and saves each picture as it comes."""

import argparse
import asyncio
from pathlib import Path

import latentd


async def draw(client: latentd.AsyncClient, prompt: str, seed: int, size: int, folder: Path) -> None:
    result = await client.txt2img(prompt, seed=seed, width=size, height=size)
    print(result.images[0].save(folder / f"{seed}.png"))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--size", type=int, default=512)
    args = parser.parse_args()

    args.folder.mkdir(parents=True, exist_ok=True)
    async with latentd.AsyncClient() as client:
        seeds = range(1, args.count + 1)
        await asyncio.gather(*(draw(client, args.prompt, seed, args.size, args.folder) for seed in seeds))


if __name__ == "__main__":
    asyncio.run(main())
