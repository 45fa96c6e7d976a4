"""What plugins are installed, and what parameters they take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

from .members import member


@dataclass(frozen=True)
class PluginMethod:
    """A method of a plugin's own, which ``client.call("NAME.method", {…})`` calls."""

    kind: str
    """``"quick"``: it answers at once; ``"job"``: it becomes a job, as ``txt2img`` does."""
    since: Optional[str] = None
    """The plugin's version that first had it."""
    description: Optional[str] = None


@dataclass(frozen=True)
class PluginAsks:
    """What a plugin asks its user for beyond what each has."""

    network: bool = False
    """The network."""
    folders: List[str] = field(default_factory=list)
    """Folders that it would read, from the root on or from ``~``."""
    write_folders: List[str] = field(default_factory=list)
    """Folders that it would write into, and read."""
    memory_bytes: Optional[int] = None
    """Bytes of memory for each of its processes."""


@dataclass(frozen=True)
class PluginEntry:
    """A plugin's file, and what became of it."""

    path: Path
    """Where it is."""
    state: str
    """``"ready"``: it may be asked for; ``"loaded"``: it is in memory; ``"set-aside"``: another version or copy of it is
    used; ``"disabled"``: the configuration says that it is not used; ``"refused"``: it cannot be used."""
    name: Optional[str] = None
    """What requests call it in ``plugins``; ``None`` if the file could not be read."""
    version: Optional[str] = None
    reason: Optional[str] = None
    """Why it may not be asked for, and what to do."""
    abi: Optional[str] = None
    """The interface that it was built for."""
    license: Optional[str] = None
    description: Optional[str] = None
    stages: List[str] = field(default_factory=list)
    """Where it takes part."""
    methods: Dict[str, PluginMethod] = field(default_factory=dict)
    """Methods of its own by their names, without the plugin's."""
    engines: Dict[str, List[str]] = field(default_factory=dict)
    """What requests and other plugins may have it compute: names by kind (``"upscaler"``, ``"restorer"``,
    ``"preprocessor"``, ``"detector"``, ``"tagger"``)."""
    saves: List[str] = field(default_factory=list)
    """Kinds of library files that it may write and remove."""
    asks: PluginAsks = field(default_factory=PluginAsks)
    """What it asks its user for."""
    agreed: bool = False
    """Whether the user agreed to all of that, for this content of its file; true if it asks for nothing. What was not agreed
    to it does without."""
    isolation: Optional[str] = None
    """Where it runs: ``"process"``, one of its own, or ``"inline"``, within the daemon."""
    uses: List[str] = field(default_factory=list)
    """What of the daemon it works with: services such as ``"network/draft-1"``, or ``"subjob/draft-1"`` of those that draw on
    their own."""


@dataclass(frozen=True)
class PluginLine:
    """A line that a plugin logged."""

    plugin: str
    """The plugin's name."""
    time: float
    """When; seconds since 1970."""
    level: str
    """``"error"``, ``"warn"`` or ``"info"``."""
    text: str


@dataclass(frozen=True)
class PluginList:
    """All plugins."""

    plugins: List[PluginEntry]
    """All that were found, those too that cannot be used."""
    not_confined: List[str] = field(default_factory=list)
    """What the daemon's kernel cannot deny to plugins that run in processes of their own, in words."""


@dataclass(frozen=True)
class PluginSchema:
    """What a plugin's parameters may be."""

    name: str
    version: str
    parameters: Dict[str, Any] = field(repr=False)
    """The JSON Schema of its parameters, with their defaults."""
    methods: Dict[str, Dict[str, Any]] = field(default_factory=dict, repr=False)
    """Of its own methods by their names: the JSON Schemas ``params`` and, where the plugin says it, ``result``."""
    settings: Optional[Dict[str, Any]] = field(default=None, repr=False)
    """The same of its settings in the configuration file; ``None`` if it has none."""


def parse_plugin_list(value: Any) -> PluginList:
    """The result of ``plugins.list``."""
    plugins = [parse_plugin_entry(plugin) for plugin in member(value, "plugins", list)]
    return PluginList(plugins, [str(lack) for lack in member(value, "not_confined", list)])


def parse_plugin_line(value: Any) -> PluginLine:
    """A line of a result's ``plugin_log``."""
    return PluginLine(
        plugin=member(value, "plugin", str),
        time=member(value, "time", float),
        level=member(value, "level", str),
        text=member(value, "text", str),
    )


def parse_plugin_schema(value: Any) -> PluginSchema:
    """The result of ``plugins.schema``."""
    return PluginSchema(
        name=member(value, "name", str),
        version=member(value, "version", str),
        parameters=member(value, "parameters", dict),
        methods={str(name): dict(schemas) for name, schemas in member(value, "methods", dict).items()},
        settings=value.get("settings"),
    )


def parse_plugin_entry(value: Any) -> PluginEntry:
    """The result of ``plugins.enable``, and each of ``plugins.list``."""
    return PluginEntry(
        path=Path(member(value, "path", str)),
        state=member(value, "state", str),
        name=value.get("name"),
        version=value.get("version"),
        reason=value.get("reason"),
        abi=value.get("abi"),
        license=value.get("license"),
        description=value.get("description"),
        stages=[str(stage) for stage in member(value, "stages", list)],
        methods={str(name): _method(method) for name, method in member(value, "methods", dict).items()},
        saves=[str(kind) for kind in member(value, "saves", list)],
        asks=_asks(member(value, "asks", dict)),
        agreed=member(value, "agreed", bool),
        isolation=value.get("isolation"),
        engines={str(kind): [str(name) for name in names] for kind, names in member(value, "engines", dict).items()},
        uses=[str(service) for service in member(value, "uses", list)],
    )


def _asks(value: Any) -> PluginAsks:
    return PluginAsks(
        network=member(value, "network", bool),
        folders=[str(folder) for folder in member(value, "folders", list)],
        write_folders=[str(folder) for folder in member(value, "write_folders", list)],
        memory_bytes=value.get("memory_bytes"),
    )


def _method(value: Any) -> PluginMethod:
    return PluginMethod(
        kind=member(value, "kind", str),
        since=value.get("since"),
        description=value.get("description"),
    )
