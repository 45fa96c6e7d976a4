"""Run folders: training that goes on after an interruption, its checkpoints, logs, curves and sheets of pictures."""

import csv
import hashlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

import data
import networks

# What training sets and vocabulary are made from: changed in the middle of a run, words would become other rows.
SOURCES = ("captions.py", "data.py", "scenes.py", "tokens.py")
SEED = 20_26
LOSSES = ("l1", "squares", "slopes", "kl", "loss", "eps_mse", "v_mse", "contrast")


class Stop(Exception):
    """The time given to this call is used up, or it was told to end; everything is saved."""


class Run:
    """One run folder: its plan, its clock, its logs and its checkpoints."""

    def __init__(self, folder, plan, device, minutes, workers, seed, team):
        self.folder, self.plan, self.device, self.workers, self.seed = folder, plan, device, workers, seed
        self.team = team
        self.deadline = time.monotonic() + 60 * minutes if minutes else None
        folder.mkdir(parents=True, exist_ok=True)
        about = folder / "plan.json"
        wanted = {"plan": asdict(plan), "seed": seed, "processes": team.size, **made_from()}
        if about.exists():
            check(about, wanted)
        elif team.leads:
            data.save(about, lambda file: file.write(json.dumps(wanted, indent=1).encode()))

    @classmethod
    def reopened(cls, folder, device):
        """A run whose checkpoints are only read."""
        about = folder / "plan.json"
        if not about.exists():
            raise SystemExit(f"{folder} is no run folder: it has no plan.json")
        known = check(about, made_from())
        run = cls.__new__(cls)
        run.folder, run.device, run.seed = folder, device, known["seed"]
        # All of the plan that the vocabulary depends on; the rest may have changed.
        run.plan = SimpleNamespace(unet_scenes=known["plan"]["unet_scenes"])
        return run

    def generators(self, stage, step):
        """(numpy's, torch's on the device) for this process's share of one step."""
        numbers = [self.seed, stage, step, self.team.rank]
        return np.random.default_rng(numbers), torch.Generator(self.device).manual_seed(hash_of(*numbers))

    def log(self, stage, row):
        """Appends to the stage's CSV, without rows that a stopped run wrote after its last checkpoint."""
        path = self.folder / f"log-{stage}.csv"
        rows = read_log(path)
        rows = [old for old in rows if int(old["step"]) < row["step"]] + [row]
        names = list(dict.fromkeys(name for old in rows for name in old))
        with open(path.with_suffix(".part"), "w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        path.with_suffix(".part").replace(path)
        print(stage, *(f"{name} {value:.5g}" for name, value in row.items()), flush=True)

    def save(self, stage, state):
        data.save(self.folder / f"{stage}.pt", lambda file: torch.save(state, file))

    def load(self, stage):
        path = self.folder / f"{stage}.pt"
        return torch.load(path, map_location=self.device, weights_only=True) if path.exists() else None

    def stop(self):
        """Ends the run after the step it is in."""
        self.deadline = time.monotonic()

    def bf16(self):
        """Products in bf16 where the hardware has units for them."""
        fast = self.device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.autocast(self.device.type, torch.bfloat16, enabled=fast)

    def out_of_time(self):
        return self.deadline is not None and time.monotonic() >= self.deadline


def made_from():
    """Name → what it has to be as long as a run's checkpoints and training sets are of use."""
    here = Path(__file__).parent
    hashes = {name: hashlib.sha256((here / name).read_bytes()).hexdigest() for name in SOURCES}
    return {"sizes": asdict(networks.SIZES), **hashes}


def check(about, wanted):
    """What plan.json says; refuses one that has another value than `wanted` under any of its names."""
    known = json.loads(about.read_text())
    others = [name for name, value in json.loads(json.dumps(wanted)).items() if known.get(name) != value]
    if others:
        raise SystemExit(f"{about.parent} was begun with another {', '.join(others)}: see {about}; give another --run")
    return known


def hash_of(*numbers):
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def read_log(path):
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def rate_at(step, steps, warm_up):
    """The share of the peak rate: warm-up, a plateau, then a fall along a cosine over the last 60 %."""
    warm = min(1.0, (step + 1) / min(warm_up, max(1, steps // 10)))
    along = max(0.0, (step / steps - 0.4) / 0.6)
    return float(warm * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * along))))


class Average:
    """An exponential moving average of a network's weights."""

    def __init__(self, network, decay):
        self.decay = decay
        self.weights = {key: value.clone() for key, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network, step):
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = [(self.weights[key], value) for key, value in network.state_dict().items()
                 if value.dtype.is_floating_point]
        torch._foreach_lerp_([mine for mine, _ in pairs], [value for _, value in pairs], 1 - decay)


def steps_of(run, stage, network, steps, optimiser, advance, show, warm_up=100):
    """Trains `network` from its last checkpoint to `steps`. `advance(step)` is the loss and what to log of it;
    `show(average, step)` looks at the averaged weights now and then and may log more."""
    plan = run.plan
    average, start, spent, sums, count = Average(network, plan.ema), 0, 0.0, {}, 0
    if saved := run.load(stage):
        network.load_state_dict(saved["network"])
        if saved["optimiser"]:
            optimiser.load_state_dict(saved["optimiser"])
        average.weights, start, spent = saved["average"], saved["step"], saved["seconds"]
        # Of steps that are not logged yet; older checkpoints have lost them.
        sums, count = saved.get("sums", {}), saved.get("count", 0)
    begun = time.monotonic()

    def save(step):
        run.save(stage, {"network": network.state_dict(), "optimiser": optimiser.state_dict(),
                         "average": average.weights, "step": step, "seconds": spent + time.monotonic() - begun,
                         "sums": sums, "count": count, "done": step == steps})

    for step in range(start, steps):
        loss, facts = advance(step)
        optimiser.zero_grad()
        loss.backward()
        numbers = [float(run.out_of_time()), *(float(fact.detach()) for fact in facts.values())]
        numbers = run.team.average(network.parameters(), numbers)
        stopping = numbers.pop(0) > 0
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step(rate_at(step, steps, warm_up))
        average.update(network, step)
        for name, value in zip(facts, numbers):
            sums[name] = sums.get(name, 0) + value
        count += 1
        done = step + 1
        if run.team.leads and (done % plan.save_every == 0 or done == steps):
            means = {name: value / count for name, value in sums.items()}
            if not all(np.isfinite(value) for value in means.values()):
                raise SystemExit(f"{stage}: the loss is no number any more at step {done}: {means}")
            row = {"step": done, "seconds": spent + time.monotonic() - begun, **means}
            run.log(stage, row)
            sums, count = {}, 0
            save(done)
            if done % plan.sample_every == 0 or done == steps:
                with run.team.all_threads():
                    run.log(stage, row | show(average.weights, done))
        if stopping and done < steps:
            if run.team.leads:
                save(done)
            raise Stop(f"{stage}: stopped after step {done} of {steps}")
    network.load_state_dict(average.weights)
    network.eval().requires_grad_(False)


def sheet(path, pictures, columns=8, colours=None):
    """Writes pictures (n, h, w, 3) as one, side by side; with a palette of `colours` in a third of the bytes."""
    padded = np.pad(pictures, ((0, -len(pictures) % columns), (1, 1), (1, 1), (0, 0)))
    rows = padded.reshape(-1, columns, *padded.shape[1:])
    image = Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in rows]))
    (image.quantize(colours) if colours else image).save(path, optimize=True)


def panel_of(name):
    """Where a column of the logs is plotted."""
    if name in LOSSES:
        return "losses"
    return "held-out pictures, dB" if name.endswith("psnr") else "held-out pictures"


def plot(run, stages):
    """Every column of the logs over its steps."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    logs = {stage: read_log(run.folder / f"log-{stage}.csv") for stage in stages}
    panels = {}
    for stage, rows in logs.items():
        for name in dict.fromkeys(name for row in rows for name in row):
            if name not in ("step", "seconds"):
                panels.setdefault(stage, {}).setdefault(panel_of(name), []).append(name)
    if not panels:
        return
    height = max(map(len, panels.values()))
    figure, axes = pyplot.subplots(height, len(panels), figsize=(7 * len(panels), 4 * height), squeeze=False)
    for column, (stage, names_of) in zip(axes.T, panels.items()):
        for axis, (panel, names) in zip(column, names_of.items()):
            for name in names:
                points = [(int(row["step"]), float(row[name])) for row in logs[stage] if row.get(name)]
                axis.plot(*zip(*points), label=name, marker=None if panel == "losses" else ".")
            axis.set(title=f"{stage}: {panel}", xlabel="step", yscale="log" if panel == "losses" else "linear")
            axis.grid(alpha=0.3)
            axis.legend(fontsize="small", ncols=2)
        for axis in column[len(names_of):]:
            axis.set_axis_off()
    figure.tight_layout()
    path = run.folder / "curves.png"
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
    # With a palette it is a third as large.
    Image.open(path).convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


def processes(wanted, device, smallest_batch):
    """How many train together: each needs a sample of every batch."""
    default = 1 if device.type == "cuda" else len(os.sched_getaffinity(0))
    return min(wanted or default, smallest_batch)
