"""One connection for several threads: a reader thread takes in what comes, callers wait for their part."""

from __future__ import annotations

import concurrent.futures
import os
import socket
import threading
import time
import weakref
from typing import Any, Callable, Dict, Mapping, Optional

from .address import check_peer, check_place, no_daemon
from .backlog import Backlog
from .errors import ConnectionClosed, LatentdError, Misuse, ProtocolError, from_wire
from .protocol import Protocol, Response
from .types import Event, parse_event, parse_library_event

EVENTS: Dict[str, Callable[[Any], Event]] = {"job.event": parse_event, "library.event": parse_library_event}
"""What notifications become."""

#: A daemon that takes nothing for this long is stuck.
_SEND_SECONDS = 30.0
_READ_BYTES = 256 * 1024


class Owner:
    """The process that made a client. In one that was forked from it nobody reads answers, and locks may be held for ever."""

    def __init__(self) -> None:
        self._process = os.getpid()

    @property
    def is_here(self) -> bool:
        return os.getpid() == self._process

    def check(self) -> None:
        if not self.is_here:
            raise Misuse("this client was made before the process forked; make a new one in the child")


class Listener:
    """Where the reader thread leaves events for one waiting thread."""

    def __init__(self, job: Optional[str], since: int, library: bool) -> None:
        self._backlog = Backlog(job, since, library=library)
        self._owner = Owner()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, event: Event) -> None:
        with self._changed:
            if self._backlog.put(event):
                self._changed.notify()

    def close(self) -> None:
        """Nothing comes any more; what has come can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def get(self, timeout: Optional[float]) -> Optional[Event]:
        """The next event; ``None`` after :meth:`close`. Raises the builtin ``TimeoutError``."""
        self._owner.check()
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                event = self._backlog.pop()
                if event is not None or self._closed:
                    return event
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self._changed.wait(left)


class Connection:
    """The socket, its reader thread, and who waits for what."""

    def __init__(self, path: str, max_message_bytes: int) -> None:
        self._protocol = Protocol(max_message_bytes)
        self._owner = Owner()
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._replies: Dict[int, concurrent.futures.Future[Any]] = {}
        # Weak: an iteration over events that nobody ends must not collect them for ever.
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
        self._closed: Optional[Callable[[], LatentdError]] = None
        self._farewell = "the daemon ended the connection"
        check_place(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(_SEND_SECONDS)
            self._socket.connect(path)
            check_peer(self._socket, path)
        except ConnectionClosed:
            self._socket.close()
            raise
        except OSError as error:
            self._socket.close()
            raise no_daemon(path, error) from error
        self._reader = threading.Thread(target=self._read, name="latentd-reader", daemon=True)
        self._reader.start()

    @property
    def closed(self) -> bool:
        return self._closed is not None

    def send(self, method: str, params: Mapping[str, Any]) -> concurrent.futures.Future[Any]:
        """Sends a request; the future gets its answer or its error."""
        self._owner.check()
        reply: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._lock:
            if self._closed is not None:
                raise self._closed()
            request_id, data = self._protocol.request(method, params)
            self._replies[request_id] = reply
        try:
            with self._send_lock:
                self._socket.sendall(data)
        except OSError as error:
            # Part of a message may be out, so nothing sensible can follow on this connection.
            reason = f"the daemon does not take requests ({error})"
            self._end(lambda: ConnectionClosed(reason))
        except BaseException:
            self._end(lambda: ConnectionClosed("sending a request was interrupted"))
            raise
        return reply

    def listen(self, job: Optional[str], since: int, library: bool = False) -> Listener:
        self._owner.check()
        listener = Listener(job, since, library)
        with self._lock:
            if self._closed is not None:
                raise self._closed()
            self._listeners.add(listener)
        return listener

    def forget(self, listener: Listener) -> None:
        if not self._owner.is_here:
            return
        with self._lock:
            self._listeners.discard(listener)

    def close(self) -> None:
        if not self._owner.is_here:
            # The connection is the parent's: only this process's handle of it goes.
            self._socket.close()
            return
        self._end(lambda: ConnectionClosed("this client was closed"))
        if threading.current_thread() is not self._reader:
            self._reader.join()

    def _read(self) -> None:
        try:
            while True:
                try:
                    data = self._socket.recv(_READ_BYTES)
                except socket.timeout:
                    continue
                if not data:
                    self._end(lambda: ConnectionClosed(self._farewell))
                    return
                self._handle(data)
        except ProtocolError as error:
            reason = error.message
            self._end(lambda: ProtocolError(reason))
        except OSError as error:
            reason = f"the connection broke ({error})"
            self._end(lambda: ConnectionClosed(reason))
        finally:
            self._socket.close()

    def _handle(self, data: bytes) -> None:
        with self._lock:
            messages = self._protocol.receive(data)
        for message in messages:
            if isinstance(message, Response):
                with self._lock:
                    reply = self._replies.pop(message.id, None)
                if reply is None:
                    pass  # The connection was ended meanwhile, and the caller told so.
                elif message.error is None:
                    reply.set_result(message.result)
                else:
                    reply.set_exception(message.error)
            elif message.method in EVENTS and message.params:
                event = EVENTS[message.method](message.params[0])
                with self._lock:
                    listeners = list(self._listeners)
                for listener in listeners:
                    listener.put(event)
            elif message.method == "rpc.error" and message.params:
                # Its last word: what was wrong with what it received.
                self._farewell += f": {from_wire(message.params[0])}"
            # Other notifications are not for us.

    def _end(self, reason: Callable[[], LatentdError]) -> None:
        """Tells everyone who waits, once. Each gets an error of its own, as each adds its own traceback."""
        with self._lock:
            if self._closed is not None:
                return
            self._closed = reason
            replies, self._replies = self._replies, {}
            listeners = list(self._listeners)
        try:
            # Wakes the reader thread, which closes the socket.
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        for reply in replies.values():
            reply.set_exception(reason())
        for listener in listeners:
            listener.close()
