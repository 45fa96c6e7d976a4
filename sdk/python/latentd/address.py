"""Where the daemon's socket is."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Optional, Union

from .errors import ConnectionClosed

START_HINT = "start one with `latentd serve --models-dir DIR`, or name its socket in LATENTD_SOCKET"


def socket_path(path: Optional[Union[str, "os.PathLike[str]"]] = None) -> str:
    """The socket to connect to.

    ``path`` if given, else ``$LATENTD_SOCKET``, else ``$XDG_RUNTIME_DIR/latentd/latentd.sock``, else
    ``latentd.sock`` in the folder ``latentd-<uid>`` under ``$TMPDIR`` or ``/tmp``. That last place is one where others
    could put a socket of their own, so the folder must be this user's, and nobody else may write to it.
    """
    if path is not None:
        return os.fspath(path)
    named = os.environ.get("LATENTD_SOCKET")
    if named:
        return named
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return str(Path(runtime, "latentd", "latentd.sock"))
    folder = Path(os.environ.get("TMPDIR") or "/tmp", f"latentd-{os.geteuid()}")
    _check_private(folder)
    return str(folder / "latentd.sock")


def _check_private(folder: Path) -> None:
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        return  # No folder, no daemon: connecting says so.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ConnectionClosed(
            f"{folder} is not a folder that only this user can write to; remove it or set LATENTD_SOCKET"
        )


def no_daemon(path: str, error: OSError) -> ConnectionClosed:
    """The error for a connection that could not be made."""
    return ConnectionClosed(f"no daemon at {path} ({error.strerror or error}); {START_HINT}")
