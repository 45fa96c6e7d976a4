"""The demo model draws what the prompt says: pictures through the daemon, marked by the judge of `models/demo`.

Few pictures with few steps, so that it takes seconds; `tests/bench/demo.py` is the long version.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, Iterator, List

import exam
import judge
import latentd
import numpy as np
import pytest
import scenes
from process import Daemon

# Seconds where there are cores to spare; a busy machine may take long, which is no failure.
pytestmark = pytest.mark.timeout(900)

SETTINGS = exam.Settings(steps=12)
#: Prompts of the exam; every eighth is a large face, every eighth a small one.
PROMPTS = 24
#: Share of right answers that must not be lost, with room for other processors' rounding and for how few there are:
#: six of these have a face. `exam.BARS` is what 300 are to reach; models/demo/README.md says how far they are.
REACHED = {"background": 0.97, "colour": 0.92, "count": 0.92, "position": 0.92, "shape": 0.9, "face": 0.8, "hair": 0.8}
#: Pictures of each prompt below, with seeds of their own.
SEEDS = range(6)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[latentd.Client]:
    """Of a daemon that has no checkpoint but what is built in; nobody names that one."""
    daemon = Daemon(models=tmp_path_factory.mktemp("models"))
    with daemon.client() as client:
        yield client
    daemon.remove()


@pytest.fixture(scope="module")
def marked(client: latentd.Client) -> List[exam.Marked]:
    return list(exam.sit(client, PROMPTS, SETTINGS))


def pictures(client: latentd.Client, prompt: str, negative: str = "") -> List[np.ndarray]:
    return [exam.draw(client, prompt, SETTINGS, seed, negative) for seed in SEEDS]


def test_pictures_show_what_the_prompt_says(
    marked: List[exam.Marked], capsys: pytest.CaptureFixture[str]
) -> None:
    table, _ = exam.report(marked)
    with capsys.disabled():
        print(f"\n{table}")
    marks = exam.marks(marked)
    assert {name for name, least in REACHED.items() if marks[name] < least} == set(), table


def test_guidance_makes_pictures_follow_the_prompt(client: latentd.Client, marked: List[exam.Marked]) -> None:
    unguided = list(exam.sit(client, PROMPTS // 2, replace(SETTINGS, cfg_scale=1.0)))
    with_guidance, without = exam.mean_mark(marked[: PROMPTS // 2]), exam.mean_mark(unguided)
    assert with_guidance > without, f"{with_guidance:.3f} at cfg {SETTINGS.cfg_scale:g}, {without:.3f} at cfg 1"


def test_emphasis_moves_a_colours_share(client: latentd.Client) -> None:
    def shares(prompt: str, word: str) -> Dict[str, float]:
        return exam.shares(pictures(client, prompt.format(word)))

    # Where two colours want one place, the one that is emphasised gets more of it.
    plain, strong = (shares("{} and blue", word)["red"] for word in ("red", "(red:1.5)"))
    assert 1.2 * plain < strong, f"red covers {plain:.2%}, {strong:.2%}"
    plain, strong = (shares("{}, yellow, circle, white background", word) for word in ("red", "(red:1.5)"))
    assert strong["red"] + strong["orange"] > plain["red"] + plain["orange"] + 0.05, f"{plain}, {strong}"
    assert strong["yellow"] < plain["yellow"] - 0.05, f"{plain}, {strong}"


@pytest.mark.parametrize("weight", [0.7, 1.2, 1.5])
def test_emphasis_leaves_the_rest_alone(client: latentd.Client, weight: float) -> None:
    prompt = "a {} circle and a blue square on a white background"
    plain, other = (exam.shares(pictures(client, prompt.format(word))) for word in ("red", f"(red:{weight})"))
    # Shares move by 1 %; where weights were not trained for, 1.2 made 22 % of the pixels pink.
    assert all(abs(other[name] - plain[name]) < 0.03 for name in plain), f"{plain}, {other}"


def test_a_negative_prompt_removes_a_colour(client: latentd.Client) -> None:
    prompt = "a large circle on a white background"
    # Without a colour in the prompt each seed picks one: the commonest is not wanted any more.
    drawn = exam.shares(pictures(client, prompt))
    unwanted = max((name for name in drawn if name != "white"), key=lambda name: drawn[name])
    left = exam.shares(pictures(client, prompt, negative=unwanted))[unwanted]
    assert left < drawn[unwanted] / 10, f"{unwanted} covers {drawn[unwanted]:.2%}, as a negative prompt {left:.2%}"


@pytest.mark.parametrize("prompt", [
    "a red circle on the right and a blue square on the left on a yellow background",
    "on the left a blue square and on the right a red circle on a yellow background",
    "on a yellow background, a red circle on the right and a blue square",
    "a yellow background with a red circle to the right of a blue square",
])
def test_words_are_read_in_any_order(client: latentd.Client, prompt: str) -> None:
    square = scenes.Shape("square", "blue", "plain", "medium", "left", 32, 64, 24)
    circle = scenes.Shape("circle", "red", "plain", "medium", "right", 96, 64, 24)
    scene = scenes.Scene("yellow", (square, circle))
    marks = judge.tally([judge.judge(picture, scene) for picture in pictures(client, prompt)])
    # One of six may be wrong.
    assert {name for name, share in marks.items() if share < 0.8} == set(), marks


def test_a_seed_is_a_picture(client: latentd.Client) -> None:
    prompt = "a green star on a black background"
    first, other = (exam.draw(client, prompt, SETTINGS, seed) for seed in (1, 2))
    assert np.array_equal(exam.draw(client, prompt, SETTINGS, 1), first)
    assert not np.array_equal(other, first)
