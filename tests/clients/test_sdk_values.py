"""What may stand in a request, and files that are written. No daemon takes part."""

from __future__ import annotations

import os
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable

import latentd
import msgpack
import numpy as np
import pytest
from latentd import calls, plugins, prompts
from latentd.protocol import Protocol
from latentd.types import parse_event, parse_result


class Level(IntEnum):
    HIGH = 3


def sent(params: Any) -> Any:
    _, data = Protocol().request("txt2img", params)
    return msgpack.unpackb(data)[3][0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.int64(7), 7),
        (np.uint8(7), 7),
        (np.array(7), 7),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (Level.HIGH, 3),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (Decimal("0.5"), 0.5),
        (Fraction(1, 2), 0.5),
        (np.bool_(True), True),
        (True, True),
        (np.str_("a"), "a"),
        (Path("a/b"), "a/b"),
        (b"ab", b"ab"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"axbx")[::2], b"ab"),
        ((1, np.int8(2)), [1, 2]),
        (MappingProxyType({"every": np.int16(2)}), {"every": 2}),
        (None, None),
    ],
    ids=repr,
)
def test_whatever_has_the_form_of_a_value_is_one(given: Any, expected: Any) -> None:
    back = sent({"field": given})["field"]
    assert back == expected and type(back) is type(expected)


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ({"seed": np.array([1, 2])}, TypeError, r"seed: numpy\.ndarray"),
        ({"seed": np.array([1])}, TypeError, r"seed: numpy\.ndarray"),
        ({"output": {"dir": {1, 2}}}, TypeError, r"output\.dir: builtins\.set"),
        ({"seed": 1 << 64}, OverflowError, "seed: .*64 bits"),
        ({"seed": 1j}, TypeError, "seed: builtins.complex"),
        ({"output": {1: 2}}, TypeError, "output: the key 1"),
    ],
)
def test_what_has_none_is_named(given: Any, kind: type, says: str) -> None:
    with pytest.raises(kind, match=says):
        sent(given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"\x89PNG", {"png": b"\x89PNG"}),
        (bytearray(b"\xff\xd8\xff"), {"jpeg": b"\xff\xd8\xff"}),
        (memoryview(b"RIFF0000WEBP"), {"webp": b"RIFF0000WEBP"}),
        ("/a.png", {"path": "/a.png"}),
        (Path("a.png"), {"path": os.path.abspath("a.png")}),
        (latentd.Blob("0" * 64), {"blob": "0" * 64}),
        (latentd.Image(1, 1, png=b"x"), {"png": b"x"}),
        (latentd.Image(2, 1, raw=b"ab", channels=1), {"raw": b"ab", "width": 2, "height": 1, "channels": 1}),
        ({"blob": "0" * 64}, {"blob": "0" * 64}),
        # The daemon says what is wrong with these.
        (5, 5),
        (None, None),
    ],
    ids=repr,
)
def test_a_mask_is_a_picture_in_any_form(given: Any, expected: Any) -> None:
    params = {"prompt": "a", "regions": ({"mask": given, "prompt": "b", "weight": 0.5},)}
    call = calls.submit("txt2img", params, None)
    assert call.params["params"] == {
        "prompt": "a",
        "regions": [{"mask": expected, "prompt": "b", "weight": 0.5}],
    }
    # Other methods may mean something else by the same name.
    assert calls.submit("plugin.method", params, None).params["params"] == params


@pytest.mark.parametrize("regions", [None, 5, "text", {"mask": b"x"}, [], [5], [{"prompt": "x"}]], ids=repr)
def test_what_is_no_region_is_left_to_the_daemon(regions: Any) -> None:
    call = calls.submit("txt2img", {"regions": regions}, None)
    assert call.params["params"] == {"regions": regions}


def test_what_is_no_mask_is_named() -> None:
    regions = [{"mask": np.zeros((2, 2)), "prompt": "x"}]
    with pytest.raises(TypeError, match=r"regions\.0\.mask: numpy\.ndarray"):
        sent(calls.submit("txt2img", {"regions": regions}, None).params)


@pytest.mark.parametrize(
    ("parse", "answer", "says"),
    [
        (prompts.parse_prompt_tokens, 5, "5 where a map"),
        (prompts.parse_prompt_tokens, {"tokens": "5"}, "tokens '5' where int"),
        (prompts.parse_prompt_tokens, {"parts": {}}, "parts {} where list"),
        (prompts.parse_prompt_tokens, {"parts": [{"schedule": [7]}]}, "7 where a map"),
        (prompts.parse_prompt_tokens, {"parts": [{"texts": [{"chunks": [7]}]}]}, "a chunk"),
        (prompts.parse_prompt_tokens, {"parts": [{"texts": [{"chunks": [[7]]}]}]}, "7 where a map"),
        (prompts.parse_prompt_tokens, {"networks": [None]}, "None where a map"),
        (prompts.parse_style_list, {"styles": [{"name": 5}]}, "name 5 where str"),
        (prompts.parse_style, [], r"\[\] where a map"),
        (plugins.parse_plugin_list, {"plugins": [5]}, "5 where a map"),
        (plugins.parse_plugin_schema, {"parameters": []}, r"parameters \[\] where dict"),
    ],
)
def test_answers_of_another_form_are_errors(parse: Callable[[Any], Any], answer: Any, says: str) -> None:
    with pytest.raises(latentd.ProtocolError, match=says):
        parse(answer)


def test_what_a_daemon_leaves_out_is_empty() -> None:
    told = prompts.parse_prompt_tokens({"parts": [{"weight": 1, "texts": [{"chunks": [[{"id": 3}]]}]}]})
    token = latentd.PromptToken(3, "", False, 0.0)
    part = latentd.PromptPart(1.0, [], [latentd.PromptText("", [[token]])])
    assert told == latentd.PromptTokens("", [part], [], [], 0, 0) and type(told.parts[0].weight) is float
    assert prompts.parse_style_list({}) == latentd.StyleList([])
    assert plugins.parse_plugin_list({}) == latentd.PluginList([])
    entry = latentd.PluginEntry(Path("/a.so"), "refused", reason="is no library")
    answer = {"plugins": [{"path": "/a.so", "state": "refused", "reason": "is no library"}]}
    assert plugins.parse_plugin_list(answer) == latentd.PluginList([entry])


def test_a_picture_is_written_through_a_link_and_keeps_what_a_file_had(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.png"
    link.symlink_to(Path("real", "picture.png"))
    picture = latentd.Image(1, 1, png=b"new")
    for _ in range(2):
        assert picture.save(link) == link
        assert link.is_symlink() and (tmp_path / "real" / "picture.png").read_bytes() == b"new"
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"old")
    secret.chmod(0o600)
    picture.save(secret)
    assert secret.read_bytes() == b"new" and secret.stat().st_mode & 0o777 == 0o600
    long = tmp_path / ("x" * 250 + ".png")
    for _ in range(2):
        picture.save(long)
    assert sorted(os.listdir(tmp_path)) == sorted(["link.png", "real", "secret.png", long.name])
    assert os.listdir(tmp_path / "real") == ["picture.png"]
    with pytest.raises(FileNotFoundError, match="nowhere/a.png'"):
        picture.save(tmp_path / "nowhere" / "a.png")


def test_what_plugins_leave_and_tell_is_had() -> None:
    picture = {"width": 2, "height": 1, "raw": b"\x01\x02", "channels": 1}
    artifact = {"plugin": "edges", "name": "detected map", "image": 1, "picture": picture}
    of_all = {"plugin": "edges", "name": "mask", "picture": {**picture, "channels": 1}}
    result = parse_result({"images": [], "artifacts": [artifact, of_all]})
    assert [(found.name, found.image) for found in result.artifacts] == [("detected map", 1), ("mask", None)]
    assert result.artifacts[0].picture.raw == b"\x01\x02" and result.artifacts[0].plugin == "edges"
    assert parse_result({"images": []}).artifacts == []
    event = {"job": "j", "seq": 3, "type": "progress", "step": 1, "steps": 2}
    told = parse_event({**event, "plugin": {"name": "edges", "share": 0.5, "what": "looking"}})
    assert isinstance(told, latentd.Progress) and told.plugin == latentd.PluginProgress("edges", 0.5, "looking")
    plain = parse_event(event)
    assert isinstance(plain, latentd.Progress) and plain.plugin is None
    with pytest.raises(latentd.ProtocolError, match="an artifact that is not a map"):
        parse_result({"images": [], "artifacts": [7]})
