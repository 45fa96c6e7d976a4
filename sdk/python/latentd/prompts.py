"""What prompts are to the models, and styles, which are texts around prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, List, Optional, TypedDict

from .errors import ProtocolError
from .members import member as _get


class PromptTokensFields(TypedDict, total=False):
    """Fields of ``prompt.tokens`` beside the text: how a request would have it read.

    What is left out has the daemon's default, which is that of ``txt2img``.
    """

    negative: bool
    """Whether it is a negative prompt, where ``AND``, weights and networks are words."""
    checkpoint: str
    """As in ``txt2img``: embeddings for another one are words to it. If left out they are all taken."""
    steps: int
    """Sampler steps, which changes are told in."""
    sampler_name: str
    """The sampler: those that call the model twice a step count double."""
    emphasis: str
    """As in ``txt2img``."""
    comma_padding_backtrack: int
    """As in ``txt2img``."""
    use_old_scheduling: bool
    """As in ``txt2img``."""


@dataclass(frozen=True)
class PromptToken:
    """A token."""

    id: int
    """Its number in CLIP's vocabulary."""
    text: str
    """What it stands for."""
    ends_word: bool
    """Whether a word ends with it."""
    weight: float
    """What the text encoder's output is multiplied by for it."""
    embedding: Optional[str] = None
    """The embedding whose vector stands here instead."""


@dataclass(frozen=True)
class PromptText:
    """A text that is encoded."""

    text: str
    chunks: List[List[PromptToken]] = field(repr=False)
    """Its tokens in chunks, without begin, end and padding."""


@dataclass(frozen=True)
class PromptStretch:
    """A stretch of steps that are told one text; of samplers that call the model twice a step, of calls. They are those that
    are drawn: as in AUTOMATIC1111 a change comes one call later than ``[from:to:when]`` says."""

    from_: int
    """The first of them; the first of all is 1."""
    until: int
    """The last of them."""
    text: int
    """The place of what is said in the part's ``texts``."""


@dataclass(frozen=True)
class PromptPart:
    """One of the things that a prompt asks for."""

    weight: float
    """What the guidance scale is multiplied by for it."""
    schedule: List[PromptStretch]
    """What it says at which steps."""
    texts: List[PromptText]
    """What it says, each text once."""


@dataclass(frozen=True)
class PromptNetwork:
    """A network that a prompt names."""

    kind: str
    """``"lora"``, ``"hypernet"``, or an extension's."""
    name: str
    written: str
    """How it stands in the prompt."""
    found: bool
    """Whether the library has it."""


@dataclass(frozen=True)
class PromptTokens:
    """What a prompt is to the models."""

    text: str
    """The prompt without comments and networks."""
    parts: List[PromptPart]
    """What is drawn together: what stands between the words ``AND``."""
    networks: List[PromptNetwork]
    """The networks that it names, in order."""
    embeddings: List[str]
    """The embeddings that it names, in the order of their first use."""
    tokens: int
    """Tokens of its longest text."""
    room: int
    """Tokens that have room in as many chunks as that takes, 75 each."""
    warnings: List[str] = field(default_factory=list)
    """What somebody might not have meant."""
    truncated: bool = False
    """Whether texts are left out for there are too many of them: their ``chunks`` are empty."""


@dataclass(frozen=True)
class StyleEntry:
    """A style: texts around the prompts of a request, which stand in the place of ``{prompt}`` in them."""

    name: str
    """What requests call it."""
    prompt: str
    negative_prompt: str
    path: Path
    """The file that it is in."""
    saved: bool
    """Whether it was saved here, and can be deleted; others are in AUTOMATIC1111's files."""


@dataclass(frozen=True)
class StyleList:
    """All styles."""

    styles: List[StyleEntry]
    """Each name once: saved ones, then those in AUTOMATIC1111's ``styles*.csv`` beside its models or in models
    folders."""
    problems: List[str] = field(default_factory=list)
    """Files that could not be read, and why."""


def parse_prompt_tokens(value: Any) -> PromptTokens:
    """The result of ``prompt.tokens``."""
    return PromptTokens(
        text=_get(value, "text", str),
        parts=[_part(part) for part in _get(value, "parts", list)],
        networks=[_network(network) for network in _get(value, "networks", list)],
        embeddings=[str(name) for name in _get(value, "embeddings", list)],
        tokens=_get(value, "tokens", int),
        room=_get(value, "room", int),
        warnings=[str(warning) for warning in _get(value, "warnings", list)],
        truncated=_get(value, "truncated", bool),
    )


def parse_style_list(value: Any) -> StyleList:
    """The result of ``styles.list``."""
    return StyleList(
        styles=[parse_style(style) for style in _get(value, "styles", list)],
        problems=[str(problem) for problem in _get(value, "problems", list)],
    )


def parse_style(value: Any) -> StyleEntry:
    """A style: the result of ``styles.save`` and ``styles.delete``."""
    return StyleEntry(
        name=_get(value, "name", str),
        prompt=_get(value, "prompt", str),
        negative_prompt=_get(value, "negative_prompt", str),
        path=Path(_get(value, "path", str)),
        saved=_get(value, "saved", bool),
    )


def _part(value: Any) -> PromptPart:
    return PromptPart(
        weight=_get(value, "weight", float),
        schedule=[_stretch(stretch) for stretch in _get(value, "schedule", list)],
        texts=[_text(text) for text in _get(value, "texts", list)],
    )


def _stretch(value: Any) -> PromptStretch:
    return PromptStretch(_get(value, "from", int), _get(value, "until", int), _get(value, "text", int))


def _text(value: Any) -> PromptText:
    chunks = _get(value, "chunks", list)
    if not all(isinstance(chunk, list) for chunk in chunks):
        raise ProtocolError("the daemon sent a chunk of tokens that is not a list")
    return PromptText(_get(value, "text", str), [[_token(token) for token in chunk] for chunk in chunks])


def _token(value: Any) -> PromptToken:
    return PromptToken(
        id=_get(value, "id", int),
        text=_get(value, "text", str),
        ends_word=_get(value, "ends_word", bool),
        weight=_get(value, "weight", float),
        embedding=value.get("embedding"),
    )


def _network(value: Any) -> PromptNetwork:
    return PromptNetwork(
        kind=_get(value, "kind", str),
        name=_get(value, "name", str),
        written=_get(value, "written", str),
        found=_get(value, "found", bool),
    )
