"""MessagePack-RPC without a socket: bytes in, messages out.

Both clients are built on :class:`Protocol`. It does the framing, numbers the requests and refuses what no
daemon sends. It does no input or output, and knows neither threads nor event loops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Set, Tuple, Union

import msgpack

from .errors import LatentdError, ProtocolError, from_wire
from .values import plain

#: The largest message that is accepted: a batch of eight raw 2048×2048 pictures is 96 MiB.
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
#: The most elements of one array or map: bounds what a header of five bytes can make us allocate.
MAX_ELEMENTS = 1 << 16

_REQUEST, _RESPONSE, _NOTIFICATION = 0, 1, 2


@dataclass(frozen=True)
class Response:
    """The answer to request ``id``: ``error`` or ``result``."""

    id: int
    error: Optional[LatentdError]
    result: Any


@dataclass(frozen=True)
class Notification:
    """Something the daemon says by itself."""

    method: str
    params: List[Any]


Message = Union[Response, Notification]


class Protocol:
    """One connection's framing and request numbers. Not thread safe: the owner serialises calls."""

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._unpacker = msgpack.Unpacker(
            raw=False,
            strict_map_key=True,
            max_buffer_size=max_message_bytes,
            max_array_len=MAX_ELEMENTS,
            max_map_len=MAX_ELEMENTS,
            max_ext_len=64,
        )
        self._next_id = 0
        self._pending: Set[int] = set()

    def request(self, method: str, params: Mapping[str, Any]) -> Tuple[int, bytes]:
        """Numbers a request; returns its id and the bytes to send."""
        request_id = self._next_id
        data = _pack([_REQUEST, request_id, method, [dict(params)]])
        # Only after packing: a value that cannot be packed must not leave an id that waits for ever.
        self._next_id = (self._next_id + 1) & 0xFFFF_FFFF
        self._pending.add(request_id)
        return request_id, data

    def receive(self, data: bytes) -> List[Message]:
        """Takes what was read from the socket; returns the messages that are now complete, in order."""
        messages: List[Message] = []
        try:
            self._unpacker.feed(data)
            for value in self._unpacker:
                messages.append(self._message(value))
        except ProtocolError:
            raise
        except (ValueError, msgpack.UnpackException, RecursionError, MemoryError) as error:
            # BufferFull has no text of its own.
            raise ProtocolError(f"the daemon sent a malformed or too large message ({error!r})") from error
        return messages

    def _message(self, value: Any) -> Message:
        if isinstance(value, list) and len(value) == 4 and value[0] == _RESPONSE:
            _, request_id, error, result = value
            if not isinstance(request_id, int) or request_id not in self._pending:
                raise ProtocolError(f"the daemon answered a request that was not made (id {request_id!r})")
            self._pending.discard(request_id)
            return Response(request_id, None if error is None else from_wire(error), result)
        if isinstance(value, list) and len(value) == 3 and value[0] == _NOTIFICATION:
            _, method, params = value
            if isinstance(method, str) and isinstance(params, list):
                return Notification(method, params)
        raise ProtocolError(f"the daemon sent something that is not MessagePack-RPC: {_shorten(value)}")


def _pack(value: object) -> bytes:
    value = plain(value)
    # surrogatepass would send invalid UTF-8; the default raises here, with the caller's own text in sight.
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
