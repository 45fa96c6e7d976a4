"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from pathlib import Path

#: What file systems answer that have no files without a name.
_UNNAMED_REFUSED = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT}


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file, through a symbolic link if one stands there. What was there before stays if anything fails."""
    target = Path(os.path.realpath(path))
    try:
        if not _write_unnamed(target, data):
            _write_named(target, data)
    except OSError as error:
        # Not with the temporary name, which is gone.
        raise OSError(error.errno, error.strerror, str(path)) from None


def _write_unnamed(target: Path, data: bytes) -> bool:
    """Without a name until all is written, so that nothing is left behind by a process that is killed; ``False`` where
    that cannot be done."""
    kind = getattr(os, "O_TMPFILE", None)
    if kind is None or os.link not in os.supports_dir_fd:
        return False
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            file = open(os.open(".", kind | os.O_WRONLY, 0o666, dir_fd=folder), "wb")
        except OSError as error:
            if error.errno in _UNNAMED_REFUSED:
                return False
            raise
        with file:
            file.write(data)
            file.flush()
            _keep_rights(file.fileno(), target)
            name = f"/proc/self/fd/{file.fileno()}"
            try:
                # With a folder's handle it is linkat, which follows the link in /proc.
                os.link(name, target.name, dst_dir_fd=folder)
                return True
            except FileExistsError:
                temporary = _temporary_name(target)
                os.link(name, temporary, dst_dir_fd=folder)
            except OSError:
                return False  # No /proc.
        try:
            os.replace(temporary, target.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(temporary, dir_fd=folder)
            raise
        return True
    finally:
        os.close(folder)


def _write_named(target: Path, data: bytes) -> None:
    temporary = target.with_name(_temporary_name(target))
    try:
        # Not mkstemp: its 0600 is for secrets, a picture gets the rights any new file gets.
        with open(temporary, "xb") as file:
            file.write(data)
            _keep_rights(file.fileno(), target)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _keep_rights(file: int, target: Path) -> None:
    """A file that takes the place of another may be read and written by the same people."""
    try:
        os.fchmod(file, stat.S_IMODE(os.stat(target).st_mode))
    except FileNotFoundError:
        pass


def _temporary_name(target: Path) -> str:
    # Short enough beside any name that a file can have.
    return f".{target.name[:32]}.{uuid.uuid4().hex}"
