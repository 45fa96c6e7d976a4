"""Trains the demo model: `python train.py --run FOLDER`. Start it again after an interruption and it goes on.

Stages: the VAE; text encoder and UNet together; the same with pairs of scenes, for words that are hard to learn; then
guidance is built in; then the file. Every random draw of a step is seeded by the stage and the step's number, so a run
that was stopped and resumed takes the same steps as one that was not.
"""

import argparse
import signal
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import networks
from runs import SEED, Run, Stop, plot, processes
from team import Team
from unet_training import (
    BEFORE_GUIDANCE, BEFORE_PAIRS, MARK, Drawer, has_guidance, move, train_guidance, train_pairs, train_unet,
    vocabulary_of)
from vae_training import settle_scale, train_vae


@dataclass(frozen=True)
class Plan:
    """What a full run does; the presets differ in how much."""

    vae_pictures: int
    vae_steps: int
    vae_batch: int
    vae_crop: int
    vae_rate: float
    unet_scenes: int
    unet_steps: int
    unet_batch: int
    unet_rate: float
    pairs: int
    pairs_steps: int
    pairs_batch: int
    pairs_rate: float
    phrasings: int
    guidance_steps: int
    guidance_batch: int
    guidance_rate: float
    ema: float
    save_every: int
    sample_every: int
    judged: int


PLANS = {
    "gpu": Plan(
        vae_pictures=40_000, vae_steps=10_000, vae_batch=128, vae_crop=48, vae_rate=0.012,
        unet_scenes=200_000, unet_steps=30_000, unet_batch=512, unet_rate=0.02,
        pairs=40_000, pairs_steps=10_000, pairs_batch=512, pairs_rate=0.01,
        phrasings=30_000, guidance_steps=2_000, guidance_batch=256, guidance_rate=0.005,
        ema=0.999, save_every=1_000, sample_every=3_000, judged=96),
    "cpu": Plan(
        vae_pictures=12_000, vae_steps=10_000, vae_batch=16, vae_crop=48, vae_rate=0.012,
        unet_scenes=24_000, unet_steps=11_000, unet_batch=64, unet_rate=0.02,
        pairs=8_000, pairs_steps=5_000, pairs_batch=64, pairs_rate=0.01,
        phrasings=6_000, guidance_steps=2_000, guidance_batch=32, guidance_rate=0.005,
        ema=0.998, save_every=250, sample_every=1_500, judged=48),
    "smoke": Plan(
        vae_pictures=64, vae_steps=6, vae_batch=8, vae_crop=48, vae_rate=0.02,
        unet_scenes=64, unet_steps=6, unet_batch=8, unet_rate=0.02,
        pairs=32, pairs_steps=3, pairs_batch=12, pairs_rate=0.005,
        phrasings=32, guidance_steps=3, guidance_batch=8, guidance_rate=0.005,
        ema=0.9, save_every=3, sample_every=6, judged=4),
}
STAGES = ("vae", "unet", "pairs", "guidance")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoints, logs, samples and the result")
    parser.add_argument("--plan", choices=PLANS, help="how much to train [default: gpu with CUDA, else cpu]")
    parser.add_argument("--smoke", action="store_true", help="the smallest plan: a few steps of each stage")
    parser.add_argument("--stage", choices=STAGES[:-1],
                        help="stop after this stage [default: all four, and the file]")
    parser.add_argument("--start", type=Path, metavar="FILE",
                        help="begin a new run with the weights of a file, at stage 2 with --unet-steps, else at the "
                             "pairs, which a finished file is beyond")
    parser.add_argument("--export", action="store_true",
                        help="train nothing: write the file as far as the run has come")
    parser.add_argument("--train-vae", action="store_true", help="with --start: train its VAE on, and all that follows")
    parser.add_argument("--vae-steps", type=int, metavar="N", help="steps of the VAE [default: the plan's]")
    parser.add_argument("--unet-steps", type=int, metavar="N",
                        help="steps of text encoder and UNet [default: the plan's]")
    parser.add_argument("--minutes", type=float, help="save and stop after this time")
    parser.add_argument("--processes", type=int,
                        help="processes of one thread that train together, at most as many as a batch has samples "
                             "[default: one a core; one on a GPU]")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw the training set")
    parser.add_argument("--no-compile", action="store_true", help="do not compile the UNet on a GPU")
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    if args.train_vae and not args.start:
        parser.error("--train-vae goes with --start")
    if args.start and not (args.train_vae or args.unet_steps) and has_guidance(args.start):
        parser.error(f"{args.start} has guidance built in, which the pairs would undo: give --unet-steps too")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = "smoke" if args.smoke else args.plan or ("gpu" if device.type == "cuda" else "cpu")
    own = {"vae_steps": args.vae_steps, "unet_steps": args.unet_steps}
    plan = replace(PLANS[name], **{key: value for key, value in own.items() if value})
    # So that each process has a sample of every sort.
    batch = min(plan.vae_batch, plan.unet_batch, plan.pairs_batch // 2, plan.guidance_batch // 3)
    team = Team(1 if args.export else processes(args.processes, device, batch))
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    if args.export:
        return write_as_it_is(Run.reopened(args.run, device))
    run = Run(args.run, plan, device, args.minutes, args.workers, args.seed, team)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, (lambda *_: run.stop()) if team.leads else signal.SIG_IGN)
    if args.start:
        with team.leader_first():
            if team.leads:
                # The same command again after an interruption.
                if (args.run / "vae.pt").exists():
                    print(f"{args.run} has begun already and goes on")
                else:
                    begin_from(run, args.start, args.train_vae, args.train_vae or args.unet_steps)
    try:
        train(run, args.stage, device.type == "cuda" and not args.no_compile)
    except Stop as stop:
        if team.leads:
            print(stop, "— start again to go on")
    if team.leads:
        plot(run, STAGES)
        team.end()


def begin_from(run, path, vae_too, unet_too):
    """Makes the checkpoints of a run folder from a finished file: of stages that are done, but for those that are to be
    trained on."""
    vocabulary = vocabulary_of(run)
    text, unet, vae = networks.load(path, vocabulary)
    if vae_too:
        # Latents as the KL term wants them, of variance 1; `settle_scale` will undo it.
        networks.fold_scale(vae, torch.zeros(4), torch.full((4,), networks.SCALE_FACTOR ** -2))
    drawer = Drawer(len(vocabulary))
    drawer.text, drawer.unet = text, unet
    # The VAE last: a run that has one has begun.
    for stage, network, done in (("unet", drawer, not unet_too), ("vae", vae, not vae_too)):
        weights = network.state_dict()
        run.save(stage, {"network": weights, "average": weights, "optimiser": None, "step": 0, "seconds": 0.0,
                         "done": done})


def train(run, last_stage, compiled):
    vae = train_vae(run)
    settle_scale(run, vae)
    if last_stage == "vae":
        return
    vocabulary = vocabulary_of(run)
    drawer = train_unet(run, vae, vocabulary, compiled)
    if last_stage == "unet":
        return
    before = deepcopy(drawer.state_dict())
    train_pairs(run, vae, vocabulary, drawer)
    if last_stage == "pairs":
        return
    move(drawer, before, BEFORE_PAIRS)
    before = deepcopy(drawer.state_dict())
    train_guidance(run, vae, vocabulary, drawer)
    move(drawer, before, BEFORE_GUIDANCE)
    if run.team.leads:
        write(run, vae, drawer, vocabulary)


def write(run, vae, drawer, vocabulary, whole=True):
    path = run.folder / "latentd-demo.safetensors"
    about = networks.ABOUT | (MARK if whole else {})
    size = networks.export(path, drawer.text, drawer.unet, vae, vocabulary, about=about)
    print(f"{path}: {size} bytes")


def write_as_it_is(run):
    """The file of a run that is not finished, from the averages of its last checkpoints."""
    vae, vocabulary = networks.make_vae(), vocabulary_of(run)
    drawer = Drawer(len(vocabulary))
    last = next((stage for stage in reversed(STAGES[1:]) if (run.folder / f"{stage}.pt").exists()), "unet")
    for stage, network in (("vae", vae), (last, drawer)):
        saved = run.load(stage)
        if saved is None:
            raise SystemExit(f"{run.folder} has no {stage}.pt yet")
        if stage == STAGES[-1] and saved["done"]:
            raise SystemExit(f"{run.folder} is finished: without --export the same command writes its file")
        network.load_state_dict(saved["average"])
        network.to(run.device).eval()
    settle_scale(run, vae)
    write(run, vae, drawer, vocabulary, whole=False)
    plot(run, STAGES)


if __name__ == "__main__":
    main()
