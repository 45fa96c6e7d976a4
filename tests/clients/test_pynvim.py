"""pynvim's MessagePack-RPC session: a client that knows nothing of latentd."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Tuple

import pytest
from conftest import SMALL, Daemon
from pynvim.msgpack_rpc import Session, socket_session

Message = Tuple[str, str, List[Any]]


@pytest.fixture
def session(daemon: Daemon) -> Iterator[Session]:
    # Begins with the notification `nvim_set_client_info`, the method name as bin.
    session = socket_session(str(daemon.socket))
    yield session
    session.close()


def test_draws_and_is_told(session: Session) -> None:
    session.request("ping", {})
    job = session.request("jobs.submit", {"method": "txt2img", "params": SMALL})["job"]
    session.request("jobs.subscribe", {"job": job, "since": 0})
    result = session.request("jobs.wait", {"job": job})
    assert result["images"][0]["png"].startswith(b"\x89PNG")
    assert result["images"][0]["seed"] == SMALL["seed"]

    events: List[Dict[str, Any]] = []
    while not events or events[-1]["type"] != "finished":
        kind, method, params = session.next_message()
        assert (kind, method) == ("notification", "job.event")
        events += params
    assert [event["job"] for event in events] == [job] * len(events)


def test_events_under_a_name_of_the_clients_choice(session: Session) -> None:
    session.request("initialize", {"client": {"name": "test", "version": "1"}, "events": "my_event"})
    job = session.request("jobs.submit", {"method": "txt2img", "params": SMALL})["job"]
    session.request("jobs.subscribe", {"job": job, "since": 0})
    kind, method, params = session.next_message()
    assert (kind, method) == ("notification", "my_event") and params[0]["job"] == job
    session.request("jobs.wait", {"job": job})


def test_errors_have_a_text(session: Session) -> None:
    with pytest.raises(Exception, match="E_INVALID_PARAMS: .*steps"):
        session.request("txt2img", {"prompt": "x", "stepz": 3})
    with pytest.raises(Exception, match="E_[A-Z_]+: .*txt2img"):
        session.request("txt2imgg", {"prompt": "x"})
    session.request("ping", {})
