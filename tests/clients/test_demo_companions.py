"""What goes with the demo model, in `models/demo/library`: found there as what it is, and drawn with where it can be."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import exam
import latentd
import pytest
from process import REPOSITORY, Daemon

# As in test_demo_pictures.py.
pytestmark = pytest.mark.timeout(900)

LIBRARY = REPOSITORY / "models" / "demo" / "library"
#: Share of right answers that the v variant must not lose: 24 pictures in few steps, as in test_demo_pictures.py.
REACHED = {"background": 0.97, "colour": 0.9, "count": 0.9, "position": 0.9, "shape": 0.85, "face": 0.8, "hair": 0.8}


@pytest.fixture(scope="module")
def client() -> Iterator[latentd.Client]:
    daemon = Daemon(models=LIBRARY)
    with daemon.client() as client:
        yield client
    daemon.remove()


def test_the_library_knows_them(client: latentd.Client) -> None:
    found = {(entry["kind"], entry["name"]): entry.get("architecture") for entry in client.library.list()}
    problems = {Path(problem["path"]).name for problem in client.library.problems()}
    assert found == {
        ("checkpoint", "latentd-demo"): "sd1",
        ("checkpoint", "latentd-demo-inpainting"): "sd1-inpainting",
        ("checkpoint", "latentd-demo-v"): "sd1",
        ("controlnet", "control_latentd-demo_canny"): None,
        ("embedding", "zippy"): None,
        ("hypernetwork", "autumn"): None,
        ("lora", "pencil"): None,
    }
    assert problems == set()
    formats = [entry["format"] for entry in client.library.list("embedding")]
    assert sorted(formats) == ["pytorch", "safetensors"], "one as A1111 pickles it, and one in safetensors"


def test_the_v_variant_draws_what_the_prompt_says(
    client: latentd.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    marked = list(exam.sit(client, 24, exam.Settings(steps=12, checkpoint="latentd-demo-v")))
    table, _ = exam.report(marked)
    with capsys.disabled():
        print(f"\n{table}")
    marks = exam.marks(marked)
    assert {name for name, least in REACHED.items() if marks[name] < least} == set(), table


def test_who_names_none_gets_one_that_can_be_drawn_with(client: latentd.Client) -> None:
    result = client.txt2img("a red circle", steps=2, seed=1)
    assert "Model: latentd-demo-v" in result.images[0].infotext
    # The first by name sees a mask, which there is none of in a request yet.
    with pytest.raises(latentd.Unsupported, match="inpainting"):
        client.txt2img("a red circle", steps=2, checkpoint="latentd-demo-inpainting")
