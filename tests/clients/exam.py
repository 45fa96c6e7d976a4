"""Has a daemon draw scenes, and the demo model's own judge mark the pictures.

Prompts, scenes and judge are those of `models/demo`; pictures come through the socket like anybody's.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional

import latentd
import numpy as np
from process import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "models" / "demo"))

import captions  # noqa: E402
import judge  # noqa: E402
import scenes  # noqa: E402

#: Share of right answers that a class must reach over 300 held-out prompts, 20 steps Euler a, cfg 5 to 7. Classes of
#: the judge that are not named here are only told.
BARS: Dict[str, float] = {
    "background": 0.97,
    "colour": 0.97,
    "shape": 0.92,
    "position": 0.90,
    "face": 0.95,
    "hair": 0.90,
}


@dataclass(frozen=True)
class Settings:
    """How pictures are drawn. Number i of several has the seed `seed + i`."""

    steps: int = 20
    cfg_scale: float = 5.0
    seed: int = 1
    sampler_name: str = "Euler a"
    checkpoint: Optional[str] = None


@dataclass(frozen=True)
class Marked:
    """A picture that was asked for, (128, 128, 3) of 0 to 255, and what is right in it: class → right or wrong."""

    prompt: str
    picture: np.ndarray
    answers: Dict[str, bool]

    @property
    def wrong(self) -> List[str]:
        return [name for name, right in self.answers.items() if not right]


def draw(client: latentd.Client, prompt: str, settings: Settings, index: int = 0, negative: str = "") -> np.ndarray:
    """(128, 128, 3) uint8: picture number `index`."""
    fields: Dict[str, Any] = {"steps": settings.steps, "cfg_scale": settings.cfg_scale,
                              "sampler_name": settings.sampler_name, "seed": settings.seed + index}
    if settings.checkpoint is not None:
        fields["checkpoint"] = settings.checkpoint
    image = client.txt2img(prompt, negative_prompt=negative, output={"format": "raw"}, **fields).images[0]
    picture = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, image.channels)
    assert picture.shape == (scenes.SIZE, scenes.SIZE, 3), f"the demo model draws another size: {picture.shape}"
    return picture


def sit(client: latentd.Client, count: int, settings: Settings) -> Iterator[Marked]:
    """The first `count` scenes of the exam: every shape in them is a held-out combination."""
    for index, scene in enumerate(judge.exam(count)):
        prompt = captions.prompt(scene)
        picture = draw(client, prompt, settings, index)
        yield Marked(prompt, picture, judge.judge(picture, scene))


def marks(marked: List[Marked]) -> Dict[str, float]:
    """Share of right answers in each class."""
    return judge.tally([one.answers for one in marked])


def report(marked: List[Marked]) -> tuple[str, List[str]]:
    """A table of the marks, and the classes below their bar."""
    lines, failed = [], []
    for name, share in marks(marked).items():
        asked = sum(name in one.answers for one in marked)
        wrong = sum(name in one.wrong for one in marked)
        line = f"{name:12}{share:8.1%}  {asked - wrong:3} of {asked:3}"
        if name in BARS:
            line += f"  at least {BARS[name]:.0%}"
            if wrong > math.floor((1 - BARS[name]) * asked + 1e-9):
                failed.append(name)
                line += "  BELOW"
        lines.append(line)
    return "\n".join(lines), failed


def mean_mark(marked: List[Marked]) -> float:
    """Share of right answers over all classes and pictures."""
    return float(np.mean([right for one in marked for right in one.answers.values()]))


def shares(pictures: List[np.ndarray]) -> Dict[str, float]:
    """Colour of the palette → share of all pixels that look most like it."""
    palette = judge.lab(np.array(list(scenes.COLOURS.values())))
    pixels = judge.lab(np.stack(pictures).reshape(-1, 3))
    nearest = np.linalg.norm(pixels[:, None] - palette, axis=-1).argmin(1)
    return {name: float((nearest == index).mean()) for index, name in enumerate(scenes.COLOURS)}
