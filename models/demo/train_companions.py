"""Trains what goes with the demo model: `python train_companions.py KIND --run FOLDER --base FILE`; KIND may be `all`.

Start it again after an interruption and it goes on. Files and sheets of their pictures come to FOLDER/library, where
a models folder has them.
"""

import argparse
import hashlib
import json
import signal
import tempfile
import time
from pathlib import Path

import torch

import data
import runs
from companions import small
from companions.base import Base, check_finished, wearing
from companions.controlnet import ControlNet
from companions.embedding import Embedding
from companions.hypernetwork import Hypernetwork
from companions.inpainting import Inpainting
from companions.lora import Lora
from companions.upscaler import Upscaler
from companions.velocity import Velocity
from team import Team

KINDS = {kind.NAME: kind for kind in (Lora, Embedding, Hypernetwork, ControlNet, Velocity, Inpainting, Upscaler)}
LARGEST_FILE = {"lora": 1_000_000, "embedding": 1_000_000, "hypernetwork": 1_000_000, "upscaler": 110_000}
# The base, its companions, and the pictures and logs of both.
LARGEST_TOGETHER = 45_000_000
SHOWN = 8


def train_one(kind, run, base):
    torch.manual_seed(run.seed + kind.STAGE)
    one = kind(run, base)
    if run.team.leads:
        check_sizes(kind, one)

    def show(weights, step):
        with wearing(one.network, weights), torch.no_grad():
            pictures, marks = one.look()
        runs.sheet(run.folder / f"{kind.NAME}-{step:06d}.png", pictures[:SHOWN])
        return marks

    runs.steps_of(
        run, kind.NAME, one.network, run.plan.steps, one.optimiser, one.advance, show, run.plan.warm_up)
    if not run.team.leads:
        return
    folder = run.folder.parent / "library" / kind.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    paths = one.write(folder)
    # Writing has rounded the weights: these are the file's pictures.
    with torch.no_grad():
        pictures, marks = one.look()
    runs.sheet(paths[0].with_suffix(".png"), pictures[:SHOWN], colours=256)
    runs.plot(run, [kind.NAME])
    report = {"bytes": {path.name: path.stat().st_size for path in paths},
              "marks": {name: round(value, 4) for name, value in marks.items()}}
    data.save(run.folder / "result.json", lambda file: file.write(json.dumps(report, indent=1).encode() + b"\n"))
    print(kind.NAME, json.dumps(report), flush=True)


def check_sizes(kind, one):
    """Fails if the kind's files are too large: that does not depend on training, so it is known before."""
    with tempfile.TemporaryDirectory() as folder, wearing(one.network, one.network.state_dict()):
        for path in one.write(Path(folder)):
            if (size := path.stat().st_size) > LARGEST_FILE.get(kind.NAME, small.LARGEST_FILE):
                raise ValueError(f"{path.name} has {size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=(*KINDS, "all"))
    parser.add_argument("--run", type=Path, required=True, help="folder of training sets, checkpoints and results")
    parser.add_argument("--base", type=Path, default=Path(__file__).parent / "latentd-demo.safetensors",
                        help="the finished demo model [default: the one beside this script]")
    parser.add_argument("--smoke", action="store_true", help="a few steps of each, to see that all of it works")
    parser.add_argument("--minutes", type=float, help="save and stop after this time")
    parser.add_argument("--processes", type=int,
                        help="processes of one thread that train together, at most as many as a batch has samples "
                             "[default: one a core; one on a GPU]")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw the training sets")
    parser.add_argument("--seed", type=int, default=runs.SEED)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plans = {name: kind.SMOKE if args.smoke else kind.PLAN for name, kind in KINDS.items()}
    team = Team(runs.processes(args.processes, device, min(plan.batch for plan in plans.values())))
    torch.set_num_threads(1)
    begun, going, told = time.monotonic(), [], []

    def end(*_):
        told.append(True)
        for run in going:
            run.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end if team.leads else signal.SIG_IGN)
    try:
        for name in KINDS if args.kind == "all" else [args.kind]:
            # Each time, for each kind reads the file anew.
            same_base(args, team)
            # Never quite nothing: all processes must find together, in a step, that the time is over.
            left = args.minutes and max(0.001, args.minutes - (time.monotonic() - begun) / 60)
            if (args.run / name / "result.json").exists():
                if team.leads:
                    print(f"{name}: done already")
                continue
            run = runs.Run(args.run / name, plans[name], device, left, args.workers, args.seed, team)
            going.append(run)
            if told:
                run.stop()
            # Each kind hooks itself into the networks, so each gets fresh ones.
            train_one(KINDS[name], run, Base(args.base, device, args.seed, args.smoke))
    except runs.Stop as stop:
        if team.leads:
            print(stop, "— start again to go on")
    if team.leads:
        team.end()
        if not args.smoke:
            weigh(args)


def weigh(args):
    """Says whether the base and what there is of its companions may be committed, with their pictures and logs."""
    here = Path(__file__).parent
    files = [args.base, *here.glob("*.png"), *here.glob("logs/*"), *here.glob("library/*/*"),
             *(args.run / "library").glob("*/*"), *args.run.glob("*/log-*.csv")]
    # By the names they get here: what is committed already counts once.
    named = {path.name: path for path in files}
    named |= {f"curves-{path.parent.name}.png": path for path in args.run.glob("*/curves.png")}
    whole = sum(path.stat().st_size for path in named.values())
    print(f"base and companions: {whole} of at most {LARGEST_TOGETHER} bytes")
    if whole > LARGEST_TOGETHER:
        raise SystemExit("too large to be committed")


def same_base(args, team):
    """A run folder belongs to one finished base: its training sets are that one's latents."""
    check_finished(args.base)
    about, found = args.run / "base.txt", hashlib.sha256(args.base.read_bytes()).hexdigest()
    if about.exists() and about.read_text() != found:
        raise SystemExit(f"{args.run} was begun with another base than {args.base}; give another --run")
    if team.leads:
        args.run.mkdir(parents=True, exist_ok=True)
        data.save(about, lambda file: file.write(found.encode()))


if __name__ == "__main__":
    main()
