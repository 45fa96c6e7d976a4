"""The daemon's methods, each described once: name, parameters, and what the answer becomes.

Both clients send these; only how they wait differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Generic, List, Mapping, Optional, TypeVar, Union

from .errors import ProtocolError
from .plugins import PluginEntry, PluginList, PluginSchema, parse_plugin_entry, parse_plugin_list, parse_plugin_schema
from .prompts import (
    PromptTokens,
    PromptTokensFields,
    StyleEntry,
    StyleList,
    parse_prompt_tokens,
    parse_style,
    parse_style_list,
)
from .types import (
    Blob,
    ImageInfo,
    ImageLike,
    Img2ImgFields,
    MergeFields,
    MergeResult,
    OutpaintFields,
    Result,
    Txt2ImgFields,
    UpscaleFields,
    UpscaleResult,
    image_in,
    parse_any_result,
    parse_blob,
    parse_image_info,
    parse_merge_result,
    parse_result,
    parse_upscale_result,
    picture_in,
    pictures_in,
    region_in,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, ready to be sent."""

    method: str
    params: Dict[str, Any]
    parse: Callable[[Any], T]


def _anything(value: Any) -> Any:
    return value


def _nothing(_value: Any) -> None:
    return None


def _map(value: Any) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"the daemon answered {type(value).__name__} where a map belongs")
    return value


def _given(**params: Any) -> Dict[str, Any]:
    """Without those that are left out: the daemon knows the defaults."""
    return {name: value for name, value in params.items() if value is not None}


def _list_in(key: str) -> Callable[[Any], List[Dict[str, Any]]]:
    def parse(value: Any) -> List[Dict[str, Any]]:
        found = _map(value).get(key)
        if not isinstance(found, list):
            raise ProtocolError(f"the daemon's answer has no list {key!r}")
        return found

    return parse


def _job_id(value: Any) -> str:
    job = _map(value).get("job")
    if not isinstance(job, str):
        raise ProtocolError("the daemon's answer names no job")
    return job


def generic(method: str, params: Optional[Mapping[str, Any]]) -> Call[Any]:
    return Call(method, dict(params or {}), _anything)


def ping() -> Call[None]:
    return Call("ping", {}, _nothing)


def initialize(name: str, version: str) -> Call[Dict[str, Any]]:
    return Call("initialize", {"client": {"name": name, "version": version}}, _map)


def status() -> Call[Dict[str, Any]]:
    return Call("status", {}, _map)


def api_info() -> Call[Dict[str, Any]]:
    return Call("api_info", {}, _map)


def shutdown() -> Call[None]:
    return Call("shutdown", {}, _nothing)


def txt2img_params(
    prompt: Union[str, List[str]], fields: Txt2ImgFields, wants_preview: bool
) -> Dict[str, Any]:
    params: Dict[str, Any] = {"prompt": prompt, **fields}
    if wants_preview:
        # Previews cost time, so the daemon makes them only when asked.
        params.setdefault("preview", {"every": 1})
    return params


def img2img_params(
    init_images: Union[ImageLike, List[ImageLike]],
    prompt: Union[str, List[str]],
    fields: Img2ImgFields,
    wants_preview: bool,
) -> Dict[str, Any]:
    return {"init_images": init_images, **txt2img_params(prompt, fields, wants_preview)}


def outpaint_params(
    image: ImageLike, prompt: Union[str, List[str]], fields: OutpaintFields, wants_preview: bool
) -> Dict[str, Any]:
    return {"image": image, **txt2img_params(prompt, fields, wants_preview)}


def submit(
    method: str, params: Mapping[str, Any], id: Optional[str], on_disconnect: Optional[str] = None
) -> Call[str]:
    given = _given(id=id, on_disconnect=on_disconnect)
    params = _with_pictures(params) if method in ("txt2img", "img2img", "outpaint", "image.upscale") else dict(params)
    return Call("jobs.submit", {"method": method, "params": params, **given}, _job_id)


def _with_pictures(params: Mapping[str, Any]) -> Dict[str, Any]:
    """With all pictures in it, in whatever form they are given, as the wire has them."""
    sent = dict(params)
    regions = sent.get("regions")
    if isinstance(regions, (list, tuple)):
        sent["regions"] = [region_in(region) for region in regions]
    if "init_images" in sent:
        sent["init_images"] = pictures_in(sent["init_images"])
    if "image" in sent:
        sent["image"] = picture_in(sent["image"])
    if "images" in sent:
        sent["images"] = pictures_in(sent["images"])
    if "mask" in sent:
        mask = sent["mask"]
        sent["mask"] = pictures_in(mask) if isinstance(mask, (list, tuple)) else picture_in(mask)
    return sent


def wait(job: str) -> Call[Result]:
    return Call("jobs.wait", {"job": job}, parse_result)


def wait_any(job: str) -> Call[Any]:
    return Call("jobs.wait", {"job": job}, parse_any_result)


def wait_merged(job: str) -> Call[MergeResult]:
    return Call("jobs.wait", {"job": job}, parse_merge_result)


def wait_upscaled(job: str) -> Call[UpscaleResult]:
    return Call("jobs.wait", {"job": job}, parse_upscale_result)


def submit_upscale(
    image: Optional[ImageLike], images: Optional[List[ImageLike]], fields: UpscaleFields
) -> Call[str]:
    return submit("image.upscale", {**_given(image=image, images=images), **fields}, None)


def submit_merge(a: str, name: str, fields: MergeFields) -> Call[str]:
    return submit("models.merge", {"a": a, "name": name, **fields}, None)


def image_info(image: ImageLike) -> Call[ImageInfo]:
    return Call("image.info", {"image": image_in(image)}, parse_image_info)


def put_blob(data: bytes) -> Call[Blob]:
    return Call("blobs.put", {"data": bytes(data)}, parse_blob)


def prompt_tokens(text: str, fields: PromptTokensFields) -> Call[PromptTokens]:
    return Call("prompt.tokens", {"text": text, **fields}, parse_prompt_tokens)


def styles() -> Call[StyleList]:
    return Call("styles.list", {}, parse_style_list)


def save_style(name: str, prompt: str, negative_prompt: str) -> Call[StyleEntry]:
    params = {"name": name, "prompt": prompt, "negative_prompt": negative_prompt}
    return Call("styles.save", params, parse_style)


def delete_style(name: str) -> Call[StyleEntry]:
    return Call("styles.delete", {"name": name}, parse_style)


def plugins() -> Call[PluginList]:
    return Call("plugins.list", {}, parse_plugin_list)


def enable_plugin(name: str) -> Call[PluginEntry]:
    return Call("plugins.enable", {"name": name}, parse_plugin_entry)


def plugin_schema(name: str) -> Call[PluginSchema]:
    return Call("plugins.schema", {"name": name}, parse_plugin_schema)


def get(job: str) -> Call[Dict[str, Any]]:
    return Call("jobs.get", {"job": job}, _map)


def list_jobs(state: Optional[str], limit: Optional[int]) -> Call[List[Dict[str, Any]]]:
    return Call("jobs.list", _given(state=state, limit=limit), _list_in("jobs"))


def cancel(job: str) -> Call[None]:
    # Answers with the job as it stands, which may change within the step: nothing to build on.
    return Call("jobs.cancel", {"job": job}, _nothing)


def subscribe(job: Optional[str], since: Optional[int]) -> Call[Any]:
    return Call("jobs.subscribe", _given(job=job, since=since), _anything)


def library_list(kind: Optional[str]) -> Call[List[Dict[str, Any]]]:
    return Call("library.list", _given(kind=kind), _list_in("entries"))


def library_problems() -> Call[List[Dict[str, Any]]]:
    return Call("library.list", {}, _list_in("problems"))


def library_default() -> Call[Optional[str]]:
    return Call("library.list", {"kind": "checkpoint"}, lambda value: _map(value).get("default_checkpoint"))


def library_get(kind: str, name: str) -> Call[Dict[str, Any]]:
    return Call("library.get", {"kind": kind, "name": name}, _map)


def library_rescan() -> Call[Dict[str, Any]]:
    return Call("library.rescan", {}, _map)


def models_load(checkpoint: str, vae: Optional[str]) -> Call[Dict[str, Any]]:
    return Call("models.load", {"checkpoint": checkpoint, **_given(vae=vae)}, _map)


def models_unload(checkpoint: str) -> Call[bool]:
    return Call("models.unload", {"checkpoint": checkpoint}, lambda value: bool(_map(value).get("unloaded")))


def models_loaded() -> Call[List[Dict[str, Any]]]:
    return Call("models.loaded", {}, _list_in("models"))


def models_pin(checkpoint: str, pinned: bool) -> Call[Dict[str, Any]]:
    return Call("models.pin", {"checkpoint": checkpoint, "pinned": pinned}, _map)
