"""Checkpoints merged through the Python clients."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import latentd
import pytest
from conftest import LONG, MODELS, SMALL, SOON, Daemon

TINY = "Stable-diffusion/tiny-sd1.safetensors"


@pytest.fixture
def mixing(tmp_path: Path) -> Iterator[Tuple[Daemon, Path]]:
    """A daemon whose models folder may be written to, and the folder."""
    checkpoints = tmp_path / "Stable-diffusion"
    checkpoints.mkdir()
    for name in ("one", "two"):
        shutil.copy(MODELS / TINY, checkpoints / f"{name}.safetensors")
    daemon = Daemon(models=tmp_path)
    yield daemon, checkpoints
    daemon.remove()


def test_a_merge_is_drawn_with_and_told(mixing: Tuple[Daemon, Path]) -> None:
    daemon, folder = mixing
    steps: List[latentd.Progress] = []
    with daemon.client() as client:
        merged = client.models.merge("one", "mix", b="two", multiplier=0.5, half=True, on_progress=steps.append)
        assert isinstance(merged, latentd.MergeResult)
        assert merged.path == folder / "mix.safetensors" and merged.path.is_file()
        assert (merged.name, merged.notices) == ("mix", []) and merged.bytes > 0
        assert steps[-1].stage == "merging" and steps[-1].step == steps[-1].steps == merged.tensors
        # Of two equal models comes the same one.
        one = client.txt2img(**SMALL, checkpoint="one").images[0]
        assert client.txt2img(**SMALL, checkpoint="mix").images[0].image.tobytes() == one.image.tobytes()
        # As a job like any other.
        job = client.jobs.submit("models.merge", {"a": "one", "name": "job", "discard_weights": "^alphas"})
        waited = client.jobs.wait(job)
        assert isinstance(waited, latentd.MergeResult) and waited.tensors == merged.tensors - 2
        assert isinstance(client.jobs.wait(client.jobs.submit("txt2img", SMALL)), latentd.Result)
        with pytest.raises(latentd.InvalidParams, match="mix.safetensors exists"):
            client.models.merge("one", "mix")
        with pytest.raises(latentd.NotFound, match="'three' is not in the library"):
            client.models.merge("one", "x", b="three")
        client.models.merge("one", "mix", overwrite=True)


def test_leaving_a_merge_cancels_it(mixing: Tuple[Daemon, Path]) -> None:
    daemon, folder = mixing

    def stop(_progress: latentd.Progress) -> None:
        raise KeyError("enough")

    with daemon.client() as client:
        # Behind another job, so that it does not end before it is told of.
        drawing = client.jobs.submit("txt2img", LONG)
        assert any(event.type == "started" for event in client.events(drawing))
        with pytest.raises(latentd.Timeout):
            client.models.merge("one", "late", timeout=0.3)
        client.jobs.cancel(drawing)
        with pytest.raises(KeyError):
            client.models.merge("one", "x", on_progress=stop)
        states = {job["state"] for job in client.jobs.list() if job["method"] == "models.merge"}
        assert states <= {"cancelled", "running", "finished"}
        assert not (folder / "late.safetensors").exists()


def test_asyncio_merges_too(mixing: Tuple[Daemon, Path]) -> None:
    daemon, folder = mixing
    told: List[str] = []

    async def heard(progress: latentd.Progress) -> None:
        told.append(progress.stage)

    async def merge() -> Any:
        async with latentd.AsyncClient(daemon.socket, timeout=SOON) as client:
            fields: Dict[str, Any] = {"b": "two", "c": "one", "method": "Add difference", "dtype": "bf16"}
            merged = await client.models.merge("one", "mix", on_progress=heard, **fields)
            again = await client.models.merge("one", "again", **fields)
            waited = await client.jobs.wait(merged.job)
            return merged, again, waited

    merged, again, waited = asyncio.run(merge())
    assert merged == waited and merged.path == folder / "mix.safetensors"
    assert again.path.read_bytes()[-1000:] == merged.path.read_bytes()[-1000:] and "merging" in told
