"""CLIP's byte-pair tokenizer, from the merges that the engine carries, so that training and engine cannot differ.

Enough for captions of letters, digits and punctuation in ASCII; prompts with anything else are the engine's business.
"""

import gzip
import re
from functools import cache
from pathlib import Path

MERGES = Path(__file__).parent.parent / "assets" / "clip-merges.txt.gz"
START, END, LENGTH, VOCABULARY = 49406, 49407, 77, 49408
WORDS = re.compile(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


def byte_characters():
    """The printable stand-ins for the 256 bytes, in the vocabulary's order."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(others))]


@cache
def tables():
    """(merge → rank, piece → id)."""
    lines = gzip.decompress(MERGES.read_bytes()).decode().splitlines()
    merges = [tuple(line.split()) for line in lines]
    letters = byte_characters()
    pieces = letters + [c + "</w>" for c in letters] + [a + b for a, b in merges]
    assert len(pieces) == START, len(pieces)
    return {pair: rank for rank, pair in enumerate(merges)}, {piece: i for i, piece in enumerate(pieces)}


@cache
def split(word):
    """The ids of one word."""
    ranks, ids = tables()
    parts = [*word[:-1], word[-1] + "</w>"]
    while len(parts) > 1:
        pairs = list(zip(parts, parts[1:]))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        merged, i = [], 0
        while i < len(parts):
            if i + 1 < len(parts) and (parts[i], parts[i + 1]) == best:
                merged.append(parts[i] + parts[i + 1])
                i += 2
            else:
                merged.append(parts[i])
                i += 1
        parts = merged
    return tuple(ids[part] for part in parts)


def encode(text):
    """77 ids: start, the text, and ends to fill."""
    ids = [token for word in WORDS.findall(text.lower()) for token in split(word)]
    ids = [START, *ids[:LENGTH - 2]]
    return ids + [END] * (LENGTH - len(ids))
