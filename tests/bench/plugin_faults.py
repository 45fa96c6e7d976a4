"""Each fault of a plugin a hundred times: that every one costs its job alone, and that memory does not grow.

    tests/.venv/bin/python tests/bench/plugin_faults.py [--times 100] [--inline]

Plugins run in processes of their own, and one more does with its process whatever it likes; with `--inline` they run within the daemon.
Builds the plugins of tests/fixtures/plugins with `cc`, and one in Rust that panics in whatever stage it is told with `cargo`. Each
request with a fault must fail with the plugin's name and the stage's, or, where the fault is none to the host, draw the plain picture;
jobs that a plugin holds up are cancelled within each stage, engine and method that a job can be in (not in infotext.parse and quick
methods, which are in none), and one beside it is drawn. After each round of faults a request without plugins must have the plain
bytes. Prints how many there were, how far the daemon's memory, its open files and its processes lie apart from the tenth round on, and
whether it grows.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import latentd

from switches import ROOT, resident, spread

SOURCES = ROOT / "tests/fixtures/plugins"

# Libraries: a name, the C file, flags, and another manifest where the file takes one.
LIBRARIES: list[tuple[str, str, list[str], str | None]] = [
    (name, name, [], None)
    for name in ["faults", "wraps", "conds", "begins", "whole", "residuals", "rewriter", "tags", "saves", "ops", "engines", "methods", "finders"]
]

# Of the plugin `faults`, at each of its stages.
FAULTS = ["fail", "fail-silent", "unknown-status", "wrong-shape", "wrong-kind", "dead-handle", "slot", "null-map", "huge"]
HARMLESS = ["none", "zero", "write-argument", "leak", "notice"]
FAULT_STAGES = ["noise.init/draft-1", "denoise.combine/draft-1", "image.post/draft-1"]

# Of a plugin's parameter `act`: what it must not do, and what the error says beside the plugin's name.
ACTS: list[tuple[str, str, list[str]]] = [
    ("wraps", "denoise.wrap/draft-1", ["inside", "image", "branch", "none", "count", "nan", "large", "context", "region", "result", "fails"]),
    ("conds", "conditioning/draft-1", ["shape", "nan", "pooled", "slot"]),
    ("begins", "pass.begin/draft-1", ["small", "colours", "tensor", "slot"]),
    ("whole", "batch.post/draft-1", ["slot", "tensor", "wide", "null", "fail", "vae"]),
    ("residuals", "control.residuals/draft-1", ["fails", "null", "code", "index", "middle", "shape", "entries", "row", "twice",
                                                "rows-null", "nan", "scale"]),
    ("saves", "noise.init/draft-1", ["NaN", "nothing", "no map"]),
    ("ops", "noise.init/draft-1", ["later", "code", "dead", "no-b", "cast", "reduce", "negative", "take", "huge", "uncountable", "stride",
                                   "many", "null", "no-results"]),
]
REWRITES = [{"fault": "fail"}, {"fault": "replace"}, {"replies": ["c0"]}, {"replies": ["81a673746570730a", "c1"]}, {"slot": 3, "replies": ["80"]},
            {"nest": 500}, {"nest": -1}]
TAGS = ["list", "key", "slot", "scales", "fail"]
UPSCALERS = ["fail", "nothing", "slot", "skip", "small", "kind", "dead", "nan", "no scale", "huge scale", "refuse", "stage"]
METHODS = ["fail", "nothing", "skip", "replace", "slot", "list", "broken", "short", "dead", "nan", "own", "file"]
# Engines of all kinds, by what they do wrong.
FINDERS: list[tuple[str, int, list[str]]] = [
    ("upscaler", 1, ["fails", "no image"]),
    ("restorer", 2, ["fail", "nothing", "small"]),
    ("preprocessor", 3, ["fail", "nothing", "nan"]),
    ("detector", 4, ["fail", "no number", "no score", "upside down", "picture", "mask of another size", "mask of colours", "endless"]),
    ("tagger", 5, ["fail", "no score", "picture", "boxes", "no map"]),
]
# Where a plugin's functions are called for a job: there it panics, and waits until the job is cancelled.
PLACES = ["request.rewrite/draft-1", "prompt.tags/draft-1", "job.plan", "create", "conditioning/draft-1", "attention/draft-1",
          "pass.begin/draft-1", "noise.init/draft-1", "denoise.before/draft-1", "denoise.wrap/draft-1", "control.residuals/draft-1",
          "unet.block/draft-1", "denoise.combine/draft-1", "latent.final/draft-1", "image.post/draft-1", "batch.post/draft-1",
          "infotext.write/draft-1"]
# Endless ones: one job after the other, planned and not, and each within the one before.
PLAN = {"key": 5, "method": "img2img", "patch": {"steps": 1}, "expected": 1, "most": 2, "batch": 1}
SUBJOBS: list[tuple[dict[str, Any], str]] = [
    ({"plans": [PLAN], "runs": [{"key": 5, "times": 1000}]}, "sub-job 5 was run 2 times, which is the most"),
    ({"plans": [PLAN], "runs": [{"key": 6}]}, "sub-job 6 was not planned"),
    ({"recurses": True, "plans": [{"key": 9, "method": "txt2img", "expected": 1, "patch": {"plugins": {"subjobs": {}}}}]},
     "jobs lie 3 deep within one another at most"),
    ({"plans": [{**PLAN, "patch": {"checkpoint": "none"}}]}, "sub-job 5 (img2img)"),
]
# What waits until its job is cancelled: a method, and its fields.
Waiting = tuple[str, dict[str, Any]]


def drawing(plugins: dict[str, Any], **fields: Any) -> Waiting:
    params = {"prompt": "a red circle", "seed": 1, "steps": 2, "width": 64, "height": 64, "checkpoint": "tiny-sd1", "plugins": plugins}
    return "txt2img", {**params, **fields}


def image(side: int) -> dict[str, Any]:
    return {"raw": bytes(side * side * 3), "width": side, "height": side, "channels": 3}


WAITS: list[tuple[str, Waiting]] = [
    *(("every-stage", drawing({"every-stage": {"wait": place}}, prompt="a red circle<every:one>")) for place in PLACES),
    *((name, drawing({name: {act: "wait"}})) for name, act in [("conds", "act"), ("begins", "act"), ("whole", "act"), ("rewriter", "fault")]),
    *(("faults", drawing({"faults": {"fault": "wait", "at": stage}})) for stage in FAULT_STAGES),
    ("engines", drawing({}, enable_hr=True, hr_scale=2, hr_upscaler="wait", denoising_strength=0.5)),
    *(("finders", ("finders.ask", {"kind": kind, "name": "waits" if kind == 1 else "wait", "image": image(8)})) for _, kind, _ in FINDERS),
    ("methods", ("methods.work", {"act": "wait"})),
]

# What a plugin does with a process of its own, and what is said of that.
HOSTILE: list[tuple[str, list[str]]] = [
    ("segfault", ["SIGSEGV"]), ("abort", ["SIGABRT"]), ("exit", ["exit code 3"]), ("exit-cleanly", ["exit code 0"]),
    ("throw", ["SIGABRT"]), ("overflow", ["SIGSEGV"]), ("loop", ["by itself, and was ended"]), ("sleep", ["by itself, and was ended"]),
    ("release-twice", ["refused: released twice"]), ("use-after-release", ["refused: used after"]),
    ("wrong-thread", ["refused: wrong thread"]), ("write-input", ["SIGSEGV"]), ("garbage", ["it sent a message of 4294967295 bytes"]),
    ("half-a-message", ["by itself, and was ended"]), ("close", ["it closed its socket"]), ("never-read", ["it does not read what it is told"]), ("flood", ["flooded"]),
    ("ten-gigabytes", ["refused: "]), ("shared-gigabytes", ["refused: "]), ("fork", ["refused: "]), ("socket", ["refused: "]),
    ("home", ["refused: "]), ("ptrace", ["refused: "]), ("kill-parent", ["refused: "]), ("memory-of-parent", ["refused: "]),
    ("execute", ["refused: "]),
]

# Libraries that cannot be used, and what is said of them.
BROKEN: list[tuple[str, list[str], str]] = [
    ("null-entries", ["-DNULL_ENTRIES"], "its entry has no init"),
    ("newer-major", ["-DNEWER_MAJOR"], "ABI"),
    ("no-extension", ["-DNO_EXTENSION"], "has no such table"),
    ("init-fails", ["-DFAULT_INIT"], "init"),
    ("create-fails", ["-DFAULT_CREATE"], "create"),
]


def compiled(source: str, flags: list[str], to: Path) -> None:
    command = ["cc", "-shared", "-fPIC", "-O1", "-std=gnu99", "-I", ROOT / "plugin-api/include", *flags, f"{source}.c", "-o", to, "-lm"]
    subprocess.run(command, cwd=SOURCES, check=True)


def renamed(folder: Path, name: str, more: str = "") -> str:
    """A flag that has the plugin `faults` called otherwise."""
    text = (SOURCES / "faults.toml").read_text().replace('name = "faults"', f'name = "{name}"')
    path = folder / f"{name}.toml"
    path.write_text(text + more)
    return f'-DMANIFEST="{path}"'


def in_rust(work: Path, name: str, files: list[Path], more: str, to: Path) -> None:
    """A plugin in Rust, the first of whose files is its library."""
    folder = work / name
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder)
    manifest = (f'[package]\nname = "{name}"\nversion = "1.0.0"\nedition = "2024"\n\n[lib]\ncrate-type = ["cdylib"]\n'
                f'path = "{files[0].name}"\n\n[dependencies]\nlatentd-plugin-api = {{ path = {json.dumps(str(ROOT / "plugin-api"))} }}\n'
                f'serde = {{ version = "1", features = ["derive"] }}\n{more}\n[workspace]\n')
    (folder / "Cargo.toml").write_text(manifest)
    environment = {**os.environ, "CARGO_TARGET_DIR": str(work / "target")}
    subprocess.run(["cargo", "build", "--quiet"], cwd=folder, env=environment, check=True)
    shutil.copy(work / "target/debug" / f"lib{name.replace('-', '_')}.so", to)


def install(plugins: Path, work: Path) -> None:
    plugins.mkdir(parents=True)
    for name, source, flags, _ in LIBRARIES:
        compiled(source, flags, plugins / f"{name}.so")
    for name, flags, _ in BROKEN:
        compiled("faults", [renamed(work, name), *flags], plugins / f"{name}.so")
    compiled("faults", [renamed(work, "newer-minor"), "-DNEWER_MINOR"], plugins / "newer-minor.so")
    # Two that each ask to come behind the other.
    for name, other in [("round-a", "round-b"), ("round-b", "round-a")]:
        text = renamed(work, name)
        path = work / f"{name}.toml"
        path.write_text(path.read_text().replace('[stages."image.post/draft-1"]', f'[stages."image.post/draft-1"]\nafter = ["{other}"]'))
        compiled("faults", [text], plugins / f"{name}.so")
    in_rust(work, "every-stage", [SOURCES / "every_stage.rs", SOURCES / "every_stage.toml"], "", plugins / "every-stage.so")
    subjobs = SOURCES / "rust_subjobs"
    in_rust(work, "rust-subjobs", [subjobs / "lib.rs", subjobs / "subjobs.toml"], 'serde_json = "1"\n', plugins / "subjobs.so")
    subprocess.run(["c++", "-shared", "-fPIC", "-O1", "-pthread", "-I", ROOT / "plugin-api/include", "hostile.cpp", "-o",
                    plugins / "hostile.so"], cwd=SOURCES, check=True)
    (plugins / "text.so").write_text("no library")
    other = bytearray((plugins / "faults.so").read_bytes())
    other[18] = 0xb7 if other[18] == 0x3e else 0x3e  # another processor
    (plugins / "processor.so").write_bytes(other)
    (plugins / "outside.so").symlink_to(shutil.copy(plugins / "faults.so", work / "outside.so"))
    shutil.copy(plugins / "faults.so", plugins / "faults-again.so")


class Round:
    """One round of all faults."""

    def __init__(self, client: latentd.Client, plain: bytes, is_inline: bool) -> None:
        self.client, self.plain, self.counts, self.is_inline = client, plain, Counter(), is_inline

    def draw(self, prompt: str = "a red circle", **fields: Any) -> bytes:
        result = self.client.txt2img(prompt, seed=1, steps=2, width=64, height=64, checkpoint="tiny-sd1", output={"format": "raw"}, **fields)
        return result.images[0].data

    def begin(self, **fields: Any) -> None:
        self.client.call("img2img", {"prompt": "a red circle", "init_images": [image(64)], "seed": 1, "steps": 2, "width": 64, "height": 64,
                                     "checkpoint": "tiny-sd1", **fields})

    def fails(self, kind: str, words: list[str], ask: Any) -> None:
        try:
            ask()
        except latentd.LatentdError as error:
            missing = [word for word in words if word not in str(error)]
            if missing:
                raise SystemExit(f"{kind}: {error}: does not say {missing}") from error
            self.counts[kind] += 1
        else:
            raise SystemExit(f"{kind}, {words}: nothing failed")

    def is_plain(self, kind: str, **fields: Any) -> None:
        if self.draw(**fields) != self.plain:
            raise SystemExit(f"{kind}, {fields}: other bytes")
        self.counts[kind] += 1

    def said(self, plugin: str) -> tuple[float, str]:
        """What a plugin logged last."""
        lines = [line for told in self.client.status().get("plugins", []) if told["name"] == plugin for line in told.get("log", [])]
        return (lines[-1]["time"], lines[-1]["text"]) if lines else (0.0, "")

    def cancelled(self, plugin: str, waiting: Waiting) -> None:
        method, params = waiting
        before = self.said(plugin)
        job = self.client.jobs.submit(method, params)
        while (said := self.said(plugin)) == before or not said[1].startswith("waits"):
            if self.client.jobs.get(job)["state"] in ("finished", "failed"):
                raise SystemExit(f"{plugin}, {params}: it did not wait")
            time.sleep(0.001)
        beside = self.client.jobs.submit(*drawing({}, output={"format": "raw"}))
        self.client.jobs.cancel(job)
        try:
            self.client.jobs.wait(job)
        except latentd.Cancelled:
            self.counts["cancelled where it waits"] += 1
        else:
            raise SystemExit(f"{plugin}, {params}: not cancelled")
        if self.client.jobs.wait(beside).images[0].data != self.plain:
            raise SystemExit(f"beside {plugin}, {params}: other bytes")
        self.counts["beside those"] += 1

    def run(self) -> None:
        for stage in FAULT_STAGES:
            for fault in FAULTS:
                self.fails("faults of stages", [f"plugin 'faults', {stage}: "],
                           lambda: self.draw(plugins={"faults": {"fault": fault, "at": stage}}))
            for fault in HARMLESS:
                self.is_plain("harmless", plugins={"faults": {"fault": fault, "at": stage}})
        for plugin, stage, acts in ACTS:
            for act in acts:
                params = {"act": act, "name": "none"} if plugin == "saves" else {"act": act}
                ask = self.begin if plugin == "begins" else self.draw
                self.fails("faults of stages", [f"plugin '{plugin}', {stage}: "], lambda: ask(plugins={plugin: params}))
        for params in REWRITES:
            self.fails("rewritten wrongly", ["plugin 'rewriter'"], lambda: self.draw(plugins={"rewriter": params}))
        for what in TAGS:
            self.fails("tags", ["plugin 'tags', prompt.tags/draft-1: "],
                       lambda: self.draw(f"a red circle<wrong:{what}>", plugins={"tags": {}}))
        for name in UPSCALERS:
            self.fails("engines", [f"plugin 'engines', upscaler '{name}': "],
                       lambda: self.draw(enable_hr=True, hr_scale=2, hr_upscaler=name, denoising_strength=0.5))
        for act in METHODS:
            for method in ["at-once", "work"]:
                self.fails("methods", [f"plugin 'methods', method '{method}': "],
                           lambda: self.client.call(f"methods.{method}", {"act": act}))
        for kind, number, names in FINDERS:
            for name in names:
                params = {"kind": number, "name": name, "image": image(8)}
                self.fails("engines of all kinds", [f"plugin 'finders', {kind} '{name}'" if name.startswith("fail") else "plugin 'finders', "],
                           lambda: self.client.call("finders.ask", params))
        for place in PLACES:
            self.fails("panics", [f"plugin 'every-stage', {place}: it panicked"],
                       lambda: self.draw("a red circle<every:one>", plugins={"every-stage": {"panic": place}}))
        for params, words in SUBJOBS:
            self.fails("sub-jobs", ["plugin 'subjobs'", words], lambda: self.draw(plugins={"subjobs": params}))
        for name, _, words in BROKEN:
            self.fails("libraries", [name, words], lambda: self.draw(plugins={name: {}}))
        self.is_plain("a newer minor", plugins={"newer-minor": {}})
        self.fails("circles", ["'round-a' before 'round-b' before 'round-a'"], lambda: self.draw(plugins={"round-a": {}, "round-b": {}}))
        self.fails("parameters", ["plugins.faults", "fault"], lambda: self.draw(plugins={"faults": {"fault": "none of these"}}))
        self.fails("parameters", ["plugins.faults", "unknown field"], lambda: self.draw(plugins={"faults": {"falt": 1}}))
        self.fails("not there", ["no plugin is called 'fualts'"], lambda: self.draw(plugins={"fualts": {}}))
        for plugin, waiting in WAITS:
            self.cancelled(plugin, waiting)
        for how, words in [] if self.is_inline else HOSTILE:
            self.fails("hostile processes", ["plugin 'hostile', image.post/draft-1: ", *words],
                       lambda: self.draw(plugins={"hostile": {"how": how}}))
            # Also so that it is not set aside.
            self.is_plain("and the next of those", plugins={"hostile": {"how": "locale"}})
        listed = {Path(plugin.path).name: plugin for plugin in self.client.plugins().plugins}
        # Of two that are the same the first is used.
        for file, words in [("text.so", "not a shared library"), ("processor.so", "is a library for"), ("outside.so", "a link out of its folder"),
                            ("faults.so", "is there already")]:
            plugin = listed[file]
            if words not in str(plugin.reason):
                raise SystemExit(f"{file}: {plugin.reason}")
            self.counts["refused files"] += 1
        self.is_plain("plain requests between")


def processes(daemon: int) -> int:
    """How many the daemon has started and not waited for."""
    count = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            count += f"\nPPid:\t{daemon}\n" in status.read_text()
        except OSError:
            pass
    return count


def measure(times: int, program: Path, is_inline: bool) -> None:
    with tempfile.TemporaryDirectory() as state, tempfile.TemporaryDirectory() as work:
        install(Path(state) / "data/latentd/plugins", Path(work))
        socket = f"{state}/latentd.sock"
        config = Path(state) / "config.toml"
        names = sorted(path.stem for path in (Path(state) / "data/latentd/plugins").iterdir())
        inline = "".join(f'[plugins.{name}]\nisolation = "inline"\n' for name in names)
        config.write_text(inline if is_inline else "[plugins.hostile]\ndeadline_seconds = 2\n")
        command = [program, "serve", "--socket", socket, "--state-dir", f"{state}/state", "--models-dir", ROOT / "tests/fixtures/models",
                   "--config", config]
        environment = {"XDG_DATA_HOME": f"{state}/data", "PATH": "/usr/bin:/bin", "HOME": state}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
        try:
            process.stdout.readline()
            with latentd.Client(socket) as client:
                one = Round(client, b"", is_inline)
                one.plain = one.draw()
                sizes, files, children = [], [], []
                for _ in range(times):
                    one.run()
                    sizes.append(resident(process.pid))
                    files.append(len(os.listdir(f"/proc/{process.pid}/fd")))
                    children.append(processes(process.pid))
            for kind, count in one.counts.items():
                print(f"{count:7} {kind}")
            first = min(10, times // 2)
            middle, low, high = spread(sizes[first:])
            third = max(1, (times - first) // 3)
            began, ended = (statistics.median(part) / 2**20 for part in (sizes[first:first + third], sizes[-third:]))
            print(f"{sum(one.counts.values())} requests in {times} rounds; memory {middle / 2**20:.1f} MiB, {low:+.2f} to {high:+.2f} %; "
                  f"the middle of the first {third} rounds after {first} is {began:.1f} MiB, of the last {ended:.1f} MiB; "
                  f"{min(files[first:])} to {max(files[first:])} open files, {min(children[first:])} to {max(children[first:])} processes")
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--inline", action="store_true", help="run plugins within the daemon")
    parser.add_argument("--latentd", type=Path, default=ROOT / "target/release/latentd")
    args = parser.parse_args()
    measure(args.times, args.latentd, args.inline)


if __name__ == "__main__":
    main()
