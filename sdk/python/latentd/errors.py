"""Every error this package raises on purpose.

What the daemon answers arrives as ``[code, "E_NAME: what is wrong; what to do"]`` and becomes the subclass of
:class:`LatentdError` for that name. What goes wrong on this side of the socket has subclasses too, so
``except LatentdError`` is enough to catch everything.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Tuple, Type

_TEXT = re.compile(r"(E_[A-Z0-9_]+):\s*(.*)", re.DOTALL)


class LatentdError(Exception):
    """A request that did not succeed.

    ``code`` is the daemon's number, ``name`` its ``E_…`` name and ``message`` the text after the name. Errors
    that arise on this side have code 0.
    """

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(code, name, message)
        self.code = code
        self.name = name
        self.message = message

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"

    def __reduce__(self) -> Tuple[Any, ...]:
        # Subclasses have other constructors; without this they could not travel between processes.
        return _rebuild, (type(self), self.code, self.name, self.message)


class InvalidParams(LatentdError):
    """A field is unknown, missing, of the wrong type or out of range; the message names the nearest known field."""


class NotFound(LatentdError):
    """No such job, model or file; the message names the nearest known one."""


class Busy(LatentdError):
    """The queue is full: try again later."""


class Cancelled(LatentdError):
    """The job was cancelled."""


class ModelError(LatentdError):
    """A model file is damaged or of a kind the daemon does not draw with."""


class OutOfMemory(LatentdError):
    """The request does not fit into the memory the daemon may use."""


class PluginError(LatentdError):
    """A plugin failed."""


class Unsupported(LatentdError):
    """The daemon knows what is meant but cannot do it."""


class InternalError(LatentdError):
    """A fault of the daemon."""


class ConnectionClosed(LatentdError, ConnectionError):
    """There is no daemon at the socket, or the connection ended before the answer came."""

    def __init__(self, message: str) -> None:
        LatentdError.__init__(self, 0, "CONNECTION_CLOSED", message)


class Misuse(LatentdError, RuntimeError):
    """A client was used where it does not belong: in a forked process, on another event loop, before connecting."""

    def __init__(self, message: str) -> None:
        LatentdError.__init__(self, 0, "MISUSE", message)


class ProtocolError(LatentdError):
    """The peer sent something that is not MessagePack-RPC, or is larger than allowed; the connection is closed."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "PROTOCOL", message)


class Timeout(LatentdError, TimeoutError):
    """The answer did not come in time."""

    def __init__(self, message: str) -> None:
        LatentdError.__init__(self, 0, "TIMEOUT", message)


BY_NAME: Dict[str, Type[LatentdError]] = {
    "E_INVALID_PARAMS": InvalidParams,
    "E_NOT_FOUND": NotFound,
    "E_BUSY": Busy,
    "E_CANCELLED": Cancelled,
    "E_MODEL": ModelError,
    "E_MEMORY": OutOfMemory,
    "E_PLUGIN": PluginError,
    "E_UNSUPPORTED": Unsupported,
    "E_INTERNAL": InternalError,
}


def from_wire(error: object) -> LatentdError:
    """The typed error for the error member of a response."""
    code, text = 0, error
    if isinstance(error, (list, tuple)) and len(error) == 2:
        code, text = error
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    found = _TEXT.fullmatch(text) if isinstance(text, str) else None
    name, message = found.groups() if found else ("E_INTERNAL", str(text))
    # A name from a newer daemon is still a LatentdError, and keeps its name.
    kind = BY_NAME.get(name, LatentdError)
    return kind(code if isinstance(code, int) else 0, name, message)


def _rebuild(kind: Type[LatentdError], code: int, name: str, message: str) -> LatentdError:
    error = kind.__new__(kind)
    LatentdError.__init__(error, code, name, message)
    return error
