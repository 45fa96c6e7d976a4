"""The training sets: pictures for the VAE; latents and captions for the UNet. Made once per run folder, then kept.

Scene `i` of a set depends on the seed and `i` only, not on how many processes made it.
"""

import os
import signal
from multiprocessing import get_context

import numpy as np

import captions
import scenes

CAPTIONS_PER_SCENE = 6
SMALL_FACES = 0.35  # more of them for the VAE, which finds them hardest


def scene_rng(seed, index):
    return np.random.default_rng([seed, index])


def make(job):
    """Pictures (n, 128, 128, 3) and captions (n, 6) of scenes `start` to `stop`."""
    seed, start, stop, small_faces = job
    pictures, texts = [], []
    for index in range(start, stop):
        rng = scene_rng(seed, index)
        scene = scenes.random_scene(rng, "small face" if small_faces and rng.random() < small_faces else None)
        pictures.append(scenes.draw(scene))
        texts.append([captions.phrase(rng, scene) for _ in range(CAPTIONS_PER_SCENE)])
    return np.stack(pictures), texts


def chunks(count, seed, workers, small_faces=0.0, size=256):
    """(pictures, captions) of `count` scenes, in order, a chunk at a time; `small_faces` is the share of extra ones."""
    jobs = [(seed, start, min(count, start + size), small_faces) for start in range(0, count, size)]
    if workers <= 1:
        yield from map(make, jobs)
        return
    with pool(workers) as drawers:
        yield from drawers.imap(make, jobs)


def pool(workers):
    """Processes that draw. They may be ended, unlike the one that trains, which first saves."""
    return get_context("fork").Pool(workers, signal.signal, (signal.SIGTERM, signal.SIG_DFL))


def save(path, write):
    """Calls `write` with a temporary file that takes the name of `path` once it is whole."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def pictures(path, count, seed, workers):
    """(count, 128, 128, 3) uint8, from the file if it is there."""
    if not path.exists():
        whole = np.concatenate([part for part, _ in chunks(count, seed, workers, SMALL_FACES)])
        save(path, lambda file: np.save(file, whole))
    found = np.load(path, mmap_mode="r")
    if len(found) != count:
        raise ValueError(f"{path} has {len(found)} pictures, not {count}; remove it to make it anew")
    return found


def latents(path, count, seed, workers, encode, vocabulary):
    """Means and deviations (count, 2, 4, 16, 16) f16 and caption rows (count, 6, 77) uint8.

    `encode` takes pictures to (n, 2, 4, 16, 16), scaled as the UNet sees them.
    """
    if not path.exists():
        moments, rows = [], []
        for part, texts in chunks(count, seed, workers):
            moments.append(encode(part).astype(np.float16))
            rows.append(np.array([[vocabulary.encode(text) for text in scene] for scene in texts], np.uint8))
        moments, rows = np.concatenate(moments), np.concatenate(rows)
        save(path, lambda file: np.savez(file, moments=moments, rows=rows))
    found = np.load(path)
    if len(found["rows"]) != count:
        raise ValueError(f"{path} has {len(found['rows'])} scenes, not {count}; remove it to make it anew")
    return found["moments"], found["rows"]
