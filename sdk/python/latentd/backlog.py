"""Events that have come and are not handled yet."""

from __future__ import annotations

from collections import deque
from typing import Deque, Dict, Optional

from .types import Event, LibraryEvent, Preview

_MOST_LIBRARY_EVENTS = 1024
"""Of more that wait the oldest are lost: a reader that is so slow lists the library anew."""


class Backlog:
    """A queue of events for one listener: each event once, and of previews only the latest.

    A listener that is slower than the daemon would otherwise pile up pictures without end.
    """

    def __init__(self, job: Optional[str], since: int = 0, *, library: bool = False) -> None:
        self._job = job
        self._library = library
        self._since = since
        self._seen: Dict[str, int] = {}
        self._events: Deque[Event] = deque()

    def put(self, event: Event) -> bool:
        """Adds an event; ``False`` where it belongs to another job or has been here before."""
        if isinstance(event, LibraryEvent) != self._library:
            return False
        if self._library:
            if len(self._events) == _MOST_LIBRARY_EVENTS:
                self._events.popleft()
            self._events.append(event)
            return True
        if self._job is not None and event.job != self._job:
            return False
        # Another listener of the same connection may have asked for the past once more.
        if event.seq <= self._seen.get(event.job, self._since):
            return False
        if event.is_last and self._job is None:
            self._seen.pop(event.job, None)
        else:
            self._seen[event.job] = event.seq
        if isinstance(event, Preview):
            self._drop_preview(event.job)
        self._events.append(event)
        return True

    def pop(self) -> Optional[Event]:
        """The oldest event."""
        return self._events.popleft() if self._events else None

    def _drop_preview(self, job: str) -> None:
        for index, event in enumerate(self._events):
            if isinstance(event, Preview) and event.job == job:
                del self._events[index]
                return
