"""From what programs have at hand, numbers of NumPy among them, to what MessagePack knows."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from typing import Any

_SMALLEST, _LARGEST = -(1 << 63), (1 << 64) - 1


def plain(value: object, name: str = "") -> Any:
    """The same value of Python's own types: whatever is an integer, a number, a path, bytes or a mapping.

    Raises ``TypeError`` or ``OverflowError`` that names the field.
    """
    if value is None or isinstance(value, (bool, str, bytes, bytearray, float)):
        return value
    if isinstance(value, int):
        return _integer(int(value), name)
    if isinstance(value, memoryview):
        # Whole: one with gaps cannot be sent as it is.
        return value.tobytes()
    if isinstance(value, Mapping):
        return {_key(key, name): plain(item, _inside(name, key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, _inside(name, index)) for index, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return _number(value, name)


def _number(value: Any, name: str) -> Any:
    # NumPy's truth values have neither form of a number.
    if getattr(getattr(value, "dtype", None), "kind", "") == "b" and not getattr(value, "shape", ()):
        return bool(value)
    # Arrays of one element have both forms, and are no number.
    if not getattr(value, "shape", ()):
        for convert in (lambda: _integer(operator.index(value), name), lambda: float(value.__float__())):
            try:
                return convert()
            except (TypeError, AttributeError):
                continue
    raise TypeError(
        f"{_shown(name)}{type(value).__module__}.{type(value).__qualname__} cannot be sent; give a number, text, bytes, "
        "a list or a map"
    )


def _integer(value: int, name: str) -> int:
    if not _SMALLEST <= value <= _LARGEST:
        raise OverflowError(f"{_shown(name)}{value} does not fit into 64 bits")
    return value


def _key(key: object, name: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{_shown(name)}the key {key!r} is not text")
    return key


def _inside(name: str, part: object) -> str:
    return f"{name}.{part}" if name else str(part)


def _shown(name: str) -> str:
    # The envelope of a message is nobody's field.
    bare = name.split(".", 2)[-1] if name.count(".") >= 2 else ""
    return f"{bare}: " if bare else ""
