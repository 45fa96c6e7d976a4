"""Where the daemon's socket is, and whether it is a daemon of this user that listens there."""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path
from typing import Optional, Union

from .errors import ConnectionClosed

START_HINT = "start one with `latentd serve --models-dir DIR`, or name its socket in LATENTD_SOCKET"
OTHER_HINT = "set XDG_RUNTIME_DIR, or name another socket in LATENTD_SOCKET"

_ROOT = 0


def socket_path(path: Optional[Union[str, "os.PathLike[str]"]] = None) -> str:
    """The socket to connect to.

    ``path`` if given, else ``$LATENTD_SOCKET`` (where ``~`` in front is the home folder), else
    ``$XDG_RUNTIME_DIR/latentd/latentd.sock``, else ``latentd.sock`` in the folder ``latentd-<uid>`` under ``$TMPDIR`` or
    ``/tmp``. A relative ``XDG_RUNTIME_DIR`` or ``TMPDIR`` is as if it were not set. That last place is one where others
    could put a socket of their own, so the folder must be this user's, and nobody else may write to it.
    """
    if path is not None:
        return os.fspath(path)
    named = os.environ.get("LATENTD_SOCKET")
    if named:
        is_home = named == "~" or named.startswith("~/")
        return os.path.expanduser(named) if is_home else named
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        return str(Path(runtime, "latentd", "latentd.sock"))
    folder = _temporary_place()
    _check_private(folder)
    return str(folder / "latentd.sock")


def check_place(path: str) -> None:
    """Refuses the place in the temporary folder where somebody else may have made it before the daemon did."""
    folder = Path(path).parent
    if folder == _temporary_place():
        _check_private(folder)


def check_peer(connected: socket.socket, path: str) -> None:
    """Refuses a listener of another user: whoever holds the path of a socket gets what is sent to it."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return  # Not Linux: the folder is all that can be looked at.
    credentials = struct.Struct("3i")
    _, user, _ = credentials.unpack(connected.getsockopt(socket.SOL_SOCKET, option, credentials.size))
    if user != os.geteuid():
        raise ConnectionClosed(
            f"not connected to {path}: user {user} listens there, and you are user {os.geteuid()}; {OTHER_HINT}"
        )


def no_daemon(path: str, error: OSError) -> ConnectionClosed:
    """The error for a connection that could not be made."""
    return ConnectionClosed(f"no daemon at {path} ({error.strerror or error}); {START_HINT}")


def _temporary_place() -> Path:
    temporary = os.environ.get("TMPDIR", "")
    return Path(temporary if os.path.isabs(temporary) else "/tmp", f"latentd-{os.geteuid()}")


def _check_private(folder: Path) -> None:
    try:
        link = os.lstat(folder)
        found = os.stat(folder)
    except FileNotFoundError:
        return  # No folder, no daemon: connecting says so.
    # Who owns a link decides where it leads.
    owners = {_ROOT, os.geteuid()} if stat.S_ISLNK(link.st_mode) else {os.geteuid()}
    is_private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    if link.st_uid not in owners or not is_private:
        raise ConnectionClosed(f"{folder} is not a folder that only this user can write to; {OTHER_HINT}")
