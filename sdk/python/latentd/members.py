"""Members of the maps that a daemon answers."""

from __future__ import annotations

from typing import Any, Dict, Type, TypeVar

from .errors import ProtocolError

T = TypeVar("T")


def member(value: Any, key: str, kind: Type[T]) -> T:
    """A member of a map; what a daemon leaves out is empty."""
    if not isinstance(value, dict):
        raise ProtocolError(f"the daemon sent {value!r} where a map with {key!r} belongs")
    members: Dict[str, Any] = value
    found = members.get(key, kind())
    if kind is float and type(found) is int:
        found = float(found)
    if not isinstance(found, kind):
        raise ProtocolError(f"the daemon sent {key} {found!r} where {kind.__name__} belongs")
    return found
