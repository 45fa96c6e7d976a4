"""Draws one picture, with a progress line: python txt2img.py "a lighthouse at dusk" lighthouse.png"""

import argparse
import sys

import latentd


def show(progress: latentd.Progress) -> None:
    left = "" if progress.eta_s is None else f", {progress.eta_s:.0f} s left"
    print(f"\rstep {progress.step} of {progress.steps}{left}   ", end="", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt")
    parser.add_argument("file", help="where the PNG goes")
    parser.add_argument("--seed", type=int, default=-1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=512)
    args = parser.parse_args()

    try:
        with latentd.Client() as client:
            result = client.txt2img(
                args.prompt,
                seed=args.seed,
                steps=args.steps,
                width=args.width,
                height=args.height,
                on_progress=show,
            )
    except latentd.LatentdError as error:
        sys.exit(f"\n{error}")
    print(file=sys.stderr)
    print(result.images[0].save(args.file))


if __name__ == "__main__":
    main()
