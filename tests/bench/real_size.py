"""A Stable Diffusion 1.5 of the real size with random weights, and what diffusers makes of it in float32.

    python tests/bench/real_size.py FOLDER      # 2.1 GB; needs tests/fixtures/requirements.txt and 12 GB of memory
    cargo bench -p latentd-models --bench real_size -- FOLDER

FOLDER gets Stable-diffusion/sd15-random.safetensors (f16, LDM keys), so that it is a models folder too, and
golden.safetensors.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent.parent / "fixtures"))
from reference.checkpoints import Checkpoint, randomise  # noqa: E402


def main(folder):
    (folder / "Stable-diffusion").mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(3)
    checkpoint = Checkpoint("sd15-random")
    randomise(checkpoint, generator)
    checkpoint.round_()
    weights = {key: value.half().contiguous() for key, value in checkpoint.state_dict().items()}
    save_file(weights, folder / "Stable-diffusion" / "sd15-random.safetensors")
    del weights

    ids = torch.randint(0, 49400, (2, 77), generator=generator)
    ids[:, 0] = 49406
    context = checkpoint.clip(ids).last_hidden_state
    x = torch.randn(2, 4, 32, 32, generator=generator)
    t = torch.tensor([981.37, 12.5])
    latents = torch.randn(1, 4, 32, 32, generator=generator)
    save_file({
        "ids": ids, "context": context, "x": x, "t": t, "eps": checkpoint.unet(x, t, context).sample,
        "latents": latents, "image": checkpoint.vae.decode(latents).sample,
    }, folder / "golden.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
