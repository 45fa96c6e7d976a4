"""Pickles of weights as the programs take them that read such files: nothing in the archive but what they know."""

import io
import re
import zipfile

import torch

# A1111 refuses archives with anything else in them, as newer PyTorch adds; PyTorch itself does not miss it.
KNOWN = re.compile(r"archive/(data\.pkl|version|data/\d+)")


def save(state, path):
    """Writes `torch.save`'s archive without what came to it later; equal weights give equal bytes."""
    whole = io.BytesIO()
    torch.save(state, whole)
    with zipfile.ZipFile(whole) as made, zipfile.ZipFile(path, "w") as known:
        for name in made.namelist():
            if KNOWN.fullmatch(name):
                known.writestr(zipfile.ZipInfo(name), made.read(name))
