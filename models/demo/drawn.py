"""Training sets of latents and captions that are drawn by a function of their own: `pairs.py`, `phrasings.py`."""

import hashlib
from pathlib import Path

import numpy as np

import data


def latents(path, count, draw, workers, encode, vocabulary):
    """Moments (count, pictures, 2, 4, 16, 16) f16 and rows of captions (count, lists, captions, 77) uint8, made if they
    are not there.

    `draw(number)` → (pictures (n, 128, 128, 3) uint8, lists of captions), as many for every number.
    """
    made_from = source_of(draw)
    if not path.exists():
        moments, rows = [], []
        with data.pool(workers) as drawers:
            for number, (pictures, texts) in enumerate(drawers.imap(draw, range(count), 16)):
                if number % 64 == 0:
                    moments.append([])
                moments[-1].append(pictures)
                rows.append([[vocabulary.encode(text) for text in some] for some in texts])
                if len(moments[-1]) == 64 or number == count - 1:
                    moments[-1] = encode(np.concatenate(moments[-1])).astype(np.float16)
        moments, rows = np.concatenate(moments), np.array(rows, np.uint8)
        moments = moments.reshape(count, -1, *moments.shape[1:])
        data.save(path, lambda file: np.savez(file, moments=moments, rows=rows, made_from=made_from))
    found = np.load(path)
    if len(found["rows"]) != count or str(found["made_from"]) != made_from:
        raise ValueError(f"{path} was made by another program or plan; remove it to make it anew")
    return found["moments"], found["rows"]


def source_of(draw):
    """Tells programs apart, by the file of a function or of a `partial` of one."""
    code = getattr(draw, "func", draw).__code__
    return hashlib.sha256(Path(code.co_filename).read_bytes()).hexdigest()
