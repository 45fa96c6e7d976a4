"""Processes that train together: each takes a share of every batch, gradients are averaged.

On a CPU two processes of one thread do twice the work of one with two: a small network's operators are too short to be
worth splitting.
"""

import os
import secrets
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

PLACE = "LATENTD_DEMO_TEAM"


class Team:
    """`rank` 0 leads: it alone logs, saves and looks at pictures."""

    def __init__(self, size):
        self.rank, self.size, self.followers = 0, size, []
        if size == 1:
            return
        if place := os.environ.get(PLACE):
            rank, meeting = place.split(":", 1)
            self.rank = int(rank)
        else:
            meeting = str(Path(tempfile.gettempdir()) / f"latentd-demo-{secrets.token_hex(8)}")
            self.followers = [
                subprocess.Popen([sys.executable, *sys.argv], env=os.environ | {PLACE: f"{rank}:{meeting}"})
                for rank in range(1, size)]
        self.meeting = meeting
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=self.rank, world_size=size,
                                timeout=timedelta(hours=6))

    @property
    def leads(self):
        return self.rank == 0

    def average(self, parameters, numbers):
        """Averages all gradients, in place, and `numbers`, a list of floats, over the team."""
        if self.size == 1:
            return numbers
        gradients = [weight.grad for weight in parameters if weight.grad is not None]
        flat = torch.cat([g.flatten().cpu() for g in gradients] + [torch.tensor(numbers)])
        dist.all_reduce(flat)
        flat /= self.size
        parts = flat.split([g.numel() for g in gradients] + [len(numbers)])
        for gradient, part in zip(gradients, parts):
            gradient.copy_(part.view_as(gradient))
        return parts[-1].tolist()

    @contextmanager
    def leader_first(self):
        """The leader goes through the block, with all threads, before the others do."""
        if not self.leads:
            dist.barrier()
        with self.all_threads():
            yield
        if self.leads and self.size > 1:
            dist.barrier()

    @contextmanager
    def all_threads(self):
        """What the leader does while the others wait may use their cores."""
        threads = torch.get_num_threads()
        torch.set_num_threads(threads * self.size if self.leads else threads)
        yield
        torch.set_num_threads(threads)

    def end(self):
        for follower in self.followers:
            follower.wait()
        if self.size > 1:
            Path(self.meeting).unlink(missing_ok=True)
