"""What the daemon takes and answers, held against what the Python package has for it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import types
import typing
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Set, Tuple, Union

import latentd
import pytest
from latentd import aio, client as blocking
from latentd import prompts
from latentd import types as given

Schema = Dict[str, Any]

#: Each method and what sends it; the names after the first dot are those of `client.jobs` and its like.
SENT_BY = {
    "api_info": "api_info",
    "blobs.put": "put_blob",
    "image.info": "image_info",
    "image.upscale": "upscale",
    "img2img": "img2img",
    "initialize": "initialize",
    "jobs.cancel": "jobs.cancel",
    "jobs.get": "jobs.get",
    "jobs.list": "jobs.list",
    "jobs.submit": "jobs.submit",
    "jobs.subscribe": "events",
    "jobs.wait": "jobs.wait",
    "library.get": "library.get",
    "library.list": "library.list",
    "library.rescan": "library.rescan",
    "models.load": "models.load",
    "models.loaded": "models.loaded",
    "models.merge": "models.merge",
    "models.pin": "models.pin",
    "models.unload": "models.unload",
    "outpaint": "outpaint",
    "ping": "ping",
    "plugins.enable": "enable_plugin",
    "plugins.list": "plugins",
    "plugins.schema": "plugin_schema",
    "prompt.tokens": "prompt_tokens",
    "shutdown": "shutdown",
    "status": "status",
    "styles.delete": "delete_style",
    "styles.list": "styles",
    "styles.save": "save_style",
    "txt2img": "txt2img",
}
#: A picture in any form.
PICTURE = typing.get_type_hints(latentd.Client.image_info)["image"]
#: What is of this side.
OURS = {"self", "timeout", "on_progress", "on_preview"}

#: What methods take and answer, with the class for it; of what is taken beside the fields of a class also the name and type.
TAKEN: List[Tuple[str, type, Dict[str, Any]]] = [
    ("txt2img", latentd.Txt2ImgFields, {"prompt": Union[str, List[str]]}),
    ("img2img", latentd.Img2ImgFields, {"init_images": List[PICTURE], "prompt": Union[str, List[str]]}),  # type: ignore[valid-type]
    ("outpaint", latentd.OutpaintFields, {"image": PICTURE, "prompt": Union[str, List[str]]}),
    ("image.upscale", latentd.UpscaleFields, {"image": PICTURE, "images": List[PICTURE]}),  # type: ignore[valid-type]
    ("models.merge", latentd.MergeFields, {"a": str, "name": str}),
    ("prompt.tokens", latentd.PromptTokensFields, {"text": str}),
]
ANSWERED = {
    "txt2img": latentd.Result,
    "img2img": latentd.Result,
    "outpaint": latentd.Result,
    "image.upscale": latentd.UpscaleResult,
    "models.merge": latentd.MergeResult,
    "image.info": latentd.ImageInfo,
    "prompt.tokens": latentd.PromptTokens,
    "plugins.enable": latentd.PluginEntry,
    "plugins.list": latentd.PluginList,
    "plugins.schema": latentd.PluginSchema,
    "styles.list": latentd.StyleList,
    "styles.save": latentd.StyleEntry,
    "styles.delete": latentd.StyleEntry,
}


@pytest.fixture
def methods(client: latentd.Client) -> Dict[str, Any]:
    found: Dict[str, Any] = client.api_info()["methods"]
    # Those of plugins that lie beside the program are called by their names, as anybody's.
    plugins = {entry.name for entry in client.plugins().plugins}
    found = {name: row for name, row in found.items() if name.split(".")[0] not in plugins}
    return found


def function(module: types.ModuleType, prefix: str, name: str) -> Callable[..., Any]:
    group, _, method = name.rpartition(".")
    owner = getattr(module, prefix + group.capitalize()) if group else getattr(module, f"{prefix}Client")
    found: Callable[..., Any] = getattr(owner, method)
    return found


def parameters(function: Callable[..., Any]) -> Set[str]:
    names: Set[str] = set()
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            fields = parameter.annotation.removeprefix("Unpack[").removesuffix("]")
            names |= set(getattr(latentd, fields).__annotations__)
        else:
            names.add(name)
    return names - OURS


@pytest.mark.parametrize(("module", "prefix"), [(blocking, ""), (aio, "Async")], ids=["blocking", "asyncio"])
def test_each_method_can_be_sent_with_all_that_it_takes(
    methods: Dict[str, Any], module: types.ModuleType, prefix: str
) -> None:
    assert set(SENT_BY) == set(methods)
    for method, name in SENT_BY.items():
        taken = set((methods[method]["params"] or {}).get("properties", {}))
        if method == "initialize":
            # Who calls is told as two texts, and events are subscribed to by `events`.
            taken = {"name", "version"}
        assert parameters(function(module, prefix, name)) == taken, method


@pytest.mark.parametrize(("method", "fields", "more"), TAKEN, ids=[row[0] for row in TAKEN])
def test_fields_are_those_of_the_daemon(
    methods: Dict[str, Any], method: str, fields: type, more: Dict[str, Any]
) -> None:
    schema = methods[method]["params"]
    hints = {**typing.get_type_hints(fields), **more}
    differences = list(unlike(schema, hints, schema["$defs"], method))
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize(("method", "kind"), ANSWERED.items(), ids=list(ANSWERED))
def test_results_have_all_that_is_answered(methods: Dict[str, Any], method: str, kind: type) -> None:
    schema = methods[method]["result"]
    missing = list(without(schema, kind, schema.get("$defs", {}), method))
    assert not missing, "\n".join(missing)


def unlike(schema: Schema, hints: Dict[str, Any], defs: Schema, place: str) -> Iterator[str]:
    """Fields that only one of both has, or of another type."""
    properties = schema["properties"]
    for name in properties.keys() ^ hints.keys():
        yield f"{place}.{name}: {'only the daemon has it' if name in properties else 'the daemon does not know it'}"
    for name in properties.keys() & hints.keys():
        yield from different(properties[name], hints[name], defs, f"{place}.{name}")


def different(schema: Schema, hint: Any, defs: Schema, place: str) -> Iterator[str]:
    if hint == PICTURE:
        if "#/$defs/ImageIn" not in [each.get("$ref") for each in [schema, *schema.get("anyOf", [])]]:
            yield f"{place}: no picture"
        return
    wanted, found = dict(forms(schema, defs)), dict(forms_of(hint))
    pictures = set(typing.get_args(PICTURE))
    if pictures < set(typing.get_args(hint)):
        # A picture or a list of them: the wire's form of one is a map.
        found = {"object": None, **dict(forms_of(Union[tuple(set(typing.get_args(hint)) - pictures)]))}
    if wanted.keys() != found.keys():
        yield f"{place}: {sorted(found)} where the daemon takes {sorted(wanted)}"
    elif "array" in wanted:
        (item,) = typing.get_args(found["array"])
        yield from different(wanted["array"]["items"], item, defs, f"{place}[]")
    elif "object" in wanted and "properties" not in wanted["object"]:
        # A map by names; what JSON cannot say is anything.
        of, each = typing.get_args(found["object"]), wanted["object"].get("additionalProperties")
        if of[:1] != (str,):
            yield f"{place}: {found['object']} where the daemon takes a map by names"
        elif each:
            yield from different(each, of[1], defs, f"{place}.*")
    elif "object" in wanted:
        yield from unlike(wanted["object"], typing.get_type_hints(found["object"]), defs, place)


def forms(schema: Schema, defs: Schema) -> Iterator[Tuple[str, Schema]]:
    """The forms that a value may have, each with its schema; being left out is none."""
    if "$ref" in schema:
        schema = defs[schema["$ref"].rpartition("/")[2]]
    for each in schema.get("anyOf") or schema.get("oneOf") or []:
        yield from forms(each, defs)
    kinds = schema.get("type", [])
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if kind != "null":
            yield kind, schema


def forms_of(hint: Any) -> Iterator[Tuple[str, Any]]:
    names = {str: "string", int: "integer", float: "number", bool: "boolean"}
    if typing.get_origin(hint) is Union:
        for each in typing.get_args(hint):
            yield from forms_of(each)
    elif typing.get_origin(hint) is list:
        yield "array", hint
    else:
        yield names.get(hint, "object"), hint


def without(schema: Schema, kind: type, defs: Schema, place: str) -> Iterator[str]:
    """What is answered and has no attribute."""
    hints = typing.get_type_hints(kind)
    for name, member in schema["properties"].items():
        # `from` is a word of Python's.
        attribute = name if name in hints else f"{name}_"
        if attribute not in hints:
            yield f"{place}.{name} is not in {kind.__name__}"
            continue
        for form, answered in forms(member, defs):
            hint = hints[attribute]
            while form == "array" and typing.get_origin(hint) is list:
                (hint,) = typing.get_args(hint)
                form, answered = next(forms(answered["items"], defs))
            if form == "object" and dataclasses.is_dataclass(hint):
                yield from without(answered, typing.cast(type, hint), defs, f"{place}.{name}")


@pytest.mark.parametrize("module", [given, prompts], ids=lambda module: module.__name__)
def test_each_field_of_a_request_is_explained(module: types.ModuleType) -> None:
    """By the text below it, which `help` does not show but editors do."""
    assert module.__file__ is not None
    bare = []
    for node in ast.parse(Path(module.__file__).read_text()).body:
        if isinstance(node, ast.ClassDef) and typing.is_typeddict(getattr(module, node.name)):
            for field, after in zip(node.body, [*node.body[1:], None]):
                if isinstance(field, ast.AnnAssign) and not isinstance(after, ast.Expr):
                    bare.append(f"{node.name}.{ast.unparse(field.target)}")
    assert not bare
