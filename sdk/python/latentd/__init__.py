"""Client for latentd, the daemon that serves Stable Diffusion over a local socket.

>>> import latentd
>>> with latentd.Client() as client:
...     picture = client.txt2img("a lighthouse at dusk", seed=7).images[0]
...     picture.save("lighthouse.png")

:class:`Client` blocks and may be shared by threads; :class:`AsyncClient` is the same on asyncio.
"""

from .address import socket_path
from .aio import AsyncClient
from .client import Client
from .errors import (
    Busy,
    Cancelled,
    ConnectionClosed,
    InternalError,
    InvalidParams,
    LatentdError,
    Misuse,
    ModelError,
    NotFound,
    OutOfMemory,
    PluginError,
    ProtocolError,
    Timeout,
    Unsupported,
)
from .plugins import PluginAsks, PluginEntry, PluginLine, PluginList, PluginMethod, PluginSchema
from .prompts import (
    PromptNetwork,
    PromptPart,
    PromptStretch,
    PromptText,
    PromptToken,
    PromptTokens,
    PromptTokensFields,
    StyleEntry,
    StyleList,
)
from .types import (
    Artifact,
    Blob,
    Event,
    Image,
    ImageInfo,
    Img2ImgFields,
    LibraryEvent,
    Loopback,
    Lora,
    MergeFields,
    MergeResult,
    OutpaintFields,
    Output,
    PluginProgress,
    Preview,
    PreviewFields,
    Progress,
    Region,
    Result,
    SdUpscale,
    SoftInpainting,
    Txt2ImgFields,
    UpscaleFields,
    UpscaleResult,
)

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "AsyncClient",
    "Blob",
    "Busy",
    "Cancelled",
    "Client",
    "ConnectionClosed",
    "Event",
    "Image",
    "ImageInfo",
    "Img2ImgFields",
    "InternalError",
    "InvalidParams",
    "LatentdError",
    "LibraryEvent",
    "Loopback",
    "Lora",
    "MergeFields",
    "MergeResult",
    "Misuse",
    "ModelError",
    "NotFound",
    "OutOfMemory",
    "OutpaintFields",
    "Output",
    "PluginAsks",
    "PluginEntry",
    "PluginError",
    "PluginLine",
    "PluginList",
    "PluginMethod",
    "PluginProgress",
    "PluginSchema",
    "Preview",
    "PreviewFields",
    "Progress",
    "PromptNetwork",
    "PromptPart",
    "PromptStretch",
    "PromptText",
    "PromptToken",
    "PromptTokens",
    "PromptTokensFields",
    "ProtocolError",
    "Region",
    "Result",
    "SdUpscale",
    "SoftInpainting",
    "StyleEntry",
    "StyleList",
    "Timeout",
    "Txt2ImgFields",
    "Unsupported",
    "UpscaleFields",
    "UpscaleResult",
    "socket_path",
]
