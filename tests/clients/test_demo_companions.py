"""What goes with the demo model, in `models/demo/library`: found there as what it is."""

from __future__ import annotations

from pathlib import Path

from process import REPOSITORY, Daemon

LIBRARY = REPOSITORY / "models" / "demo" / "library"


def test_the_library_knows_them() -> None:
    daemon = Daemon(models=LIBRARY)
    try:
        with daemon.client() as client:
            found = {(entry["kind"], entry["name"]) for entry in client.library.list()}
            problems = {Path(problem["path"]).name for problem in client.library.problems()}
    finally:
        daemon.remove()
    assert found == {("checkpoint", "latentd-demo"), ("embedding", "zippy"), ("lora", "pencil")}
    # A pickle, which is not read yet.
    assert problems == {"zippy.pt"}
