"""Pictures made larger through the Python clients."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, List

import latentd
import pytest
from conftest import SMALL, Daemon


def test_a_picture_is_made_larger_whatever_it_is_given_as(client: latentd.Client, tmp_path: Path) -> None:
    drawn = client.txt2img(**SMALL).images[0]
    path = tmp_path / "drawn.png"
    drawn.save(path)
    steps: List[latentd.Progress] = []
    made = client.upscale(drawn, upscaler_1="Lanczos", scale=3, on_progress=steps.append)
    assert isinstance(made, latentd.UpscaleResult) and made.total_s > 0 and made.notices == []
    image = made.images[0]
    assert (image.width, image.height) == (192, 192)
    assert image.infotext == f"{drawn.infotext}, Postprocess upscale by: 3, Postprocess upscaler: Lanczos"
    assert steps[-1].stage == "upscaling" and steps[-1].step == steps[-1].steps
    several = client.upscale(
        images=[path, path.read_bytes(), client.put_blob(path.read_bytes())], upscaler_1="Lanczos", scale=3
    )
    assert [each.png for each in several.images] == [image.png] * 3
    job = client.jobs.submit("image.upscale", {"image": drawn, "upscaler_1": "Nearest", "width": 32, "height": 32})
    waited = client.jobs.wait(job)
    assert isinstance(waited, latentd.UpscaleResult) and waited.images[0].width == 32
    with pytest.raises(latentd.NotFound, match="did you mean 'Lanczos'"):
        client.upscale(drawn, upscaler_1="Lanczoz")
    with pytest.raises(latentd.InvalidParams, match="image: is missing"):
        client.upscale(upscaler_1="Lanczos")


def test_asyncio_does_too(daemon: Daemon) -> None:
    heard: List[Any] = []

    async def upscaled() -> latentd.UpscaleResult:
        async with latentd.AsyncClient(daemon.socket) as client:
            drawn = (await client.txt2img(**SMALL)).images[0]
            return await client.upscale(drawn, upscaler_1="Nearest", scale=2, on_progress=heard.append)

    assert asyncio.run(upscaled()).images[0].width == 128
    assert heard
