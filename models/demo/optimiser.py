"""Muon for the matrices, AdamW for the rest.

Muon (Jordan et al. 2024) takes the direction of the running mean of the gradients and makes all its singular values
about equal, by a few Newton–Schulz steps. In this folder it needs a third of AdamW's steps. Tables, biases, norms and
the layers where pictures and latents enter and leave keep AdamW.
"""

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
MOMENTUM = 0.95


def orthogonal(matrices, steps=5):
    """(n, rows, columns) → the same with singular values near 1."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).float()


class Muon:
    """`rate` is Muon's; AdamW's is `adam_rate`. Both are multiplied by `step`'s factor."""

    def __init__(self, network, rate, is_edge, adam_rate=1e-3, decay=0.01):
        self.rate, self.adam_rate, self.decay = rate, adam_rate, decay
        matrices, rest = [], []
        for name, weight in network.named_parameters():
            (matrices if weight.ndim >= 2 and not is_edge(name) else rest).append(weight)
        self.adam = torch.optim.AdamW(rest, adam_rate, betas=(0.9, 0.99), weight_decay=0)
        self.means = [torch.zeros_like(weight) for weight in matrices]
        self.by_shape = {}
        for at, weight in enumerate(matrices):
            self.by_shape.setdefault(weight.reshape(len(weight), -1).shape, []).append((weight, self.means[at]))

    def zero_grad(self):
        self.adam.zero_grad()
        for same in self.by_shape.values():
            for weight, _ in same:
                weight.grad = None

    @torch.no_grad()
    def step(self, factor):
        for group in self.adam.param_groups:
            group["lr"] = self.adam_rate * factor
        self.adam.step()
        rate = self.rate * factor
        for shape, same in self.by_shape.items():
            for weight, mean in same:
                mean.lerp_(weight.grad, 1 - MOMENTUM)
            ahead = torch.stack([weight.grad.lerp(mean, MOMENTUM).reshape(shape) for weight, mean in same])
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for (weight, _), update in zip(same, orthogonal(ahead)):
                weight.mul_(1 - rate * self.decay).add_(update.reshape(weight.shape), alpha=-rate * scale)

    def state_dict(self):
        return {"adam": self.adam.state_dict(), "means": self.means}

    def load_state_dict(self, state):
        self.adam.load_state_dict(state["adam"])
        for mean, saved in zip(self.means, state["means"], strict=True):
            mean.copy_(saved)
