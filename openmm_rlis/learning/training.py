"""Training: what V should be, and how the networks are brought there.

    tree return:    T(x) = sum of the B-weights of all descendants / w(x)
    segment:        T(x) = sum over descendants y of w(y) V(y) / w(x)            (Bellman, 1 in B, 0 in A and D)
    TD(lambda):     T(x) = sum over children c of w_c/w(x) [ (1 - lambda) V(c) + lambda T(c) ]

A tree return (lambda = 1) has the true value as its expectation, whatever V steered the walk; a segment has that of
the present V one frame later, so that the true value is its fixed point. Smaller lambda mixes segments of all lengths
with mean 1/(1 - lambda) frames. T may be 0. Losses take f = ln V and t = ln T:

    Poisson:         exp(f - f0) - exp(t - f0) f           f0 = a frozen ln V, so that relative errors count
    Itakura-Saito:   exp(t - f) + f

Both have their minimum at V = E[T]. (ln V - ln T)^2 is not offered: it breaks at T = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.adam import adam

from ..errors import bad_input
from ..features import evaluate
from ..problem import OUTSIDE, TARGET
from ..storage.cost_meter import beat
from ..value_function import ValueFunction
from ..walks.branching_walk import Walk

Array = NDArray[np.float64]
LOSSES = ("poisson", "itakura-saito")
LARGEST = 30.0


@dataclass(frozen=True)
class Samples:
    """Features (n, k) of structures outside all regions, and ln of the targets (n,), -inf where T = 0."""

    features: Array
    log_targets: Array

    def __len__(self) -> int:
        return len(self.log_targets)


def td_returns(walk: Walk, log_values: Array, decay: float) -> Array:
    """Return ln T (n_frames,) of every frame of a walk by TD(lambda).

    Parameters
    ----------
    walk
        A finished walk with all its frames.
    log_values
        (n_frames,) ln V of every frame; ignored where the frame lies in a region.
    decay
        lambda, from 0 (one frame ahead) to 1 (tree returns).
    """
    frames, parents = walk.frames, walk.tree.parents
    weights = np.exp(frames.log_weights - frames.log_weights.max())
    own = np.where(frames.codes == OUTSIDE, np.exp(log_values), np.where(frames.codes == TARGET, 1.0, 0.0))
    total = np.where(frames.codes == TARGET, weights, 0.0)
    for start, stop in zip(frames.blocks[-2:0:-1], frames.blocks[:1:-1], strict=True):
        rows = np.arange(start, stop)
        rows = rows[parents[rows] >= 0]
        terminal = frames.codes[rows] != OUTSIDE
        given = np.where(
            terminal, weights[rows] * own[rows], (1 - decay) * weights[rows] * own[rows] + decay * total[rows]
        )
        np.add.at(total, parents[rows], given)
    with np.errstate(divide="ignore"):
        log_targets: Array = np.log(total) - np.log(weights)
    return log_targets


def samples_of(walk: Walk, value: ValueFunction, decay: float, most: int, rng: np.random.Generator) -> Samples:
    """Return training samples of a walk.

    Each frame outside the regions comes with the mean of its tree return and its TD(lambda) return. At most `most`
    frames are taken, drawn evenly from all.
    """
    codes = walk.frames.codes
    features = evaluate(value.features, np.asarray(walk.tree.positions))
    log_values = evaluate(value.log_mixture, features)
    tree = td_returns(walk, log_values, 1.0)
    mixed = np.logaddexp(tree, td_returns(walk, log_values, decay)) - np.log(2.0) if decay < 1.0 else tree
    rows = np.flatnonzero(codes == OUTSIDE)
    if len(rows) > most:
        rows = np.sort(rng.choice(rows, most, replace=False))
    return Samples(features[rows], mixed[rows])


def loss_function(name: str, log_values: Tensor, log_targets: Tensor, frozen: Tensor) -> Tensor:
    """Return the mean loss; all arguments (n,), `log_targets` may hold -inf."""
    if name == "poisson":
        return (_exp(log_values - frozen) - _exp(log_targets - frozen) * log_values).mean()
    if name == "itakura-saito":
        return (_exp(log_targets - log_values) + log_values).mean()
    raise bad_input("loss", f"one of {', '.join(LOSSES)}", repr(name))


def _exp(x: Tensor) -> Tensor:
    """Return e^x up to e^30 and a straight line beyond, so that a V that is far off gets a finite step, not NaN."""
    return torch.exp(torch.clamp(x, max=LARGEST)) * (1.0 + torch.clamp(x - LARGEST, min=0.0))


class _Adam:
    """torch's Adam as a function: the class loads torch's compiler, 2 seconds and 100 MB that nothing here needs."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.weights = list(weights)
        self.means, self.squares = ([torch.zeros_like(w) for w in weights] for _ in range(2))
        self.steps = [torch.zeros(()) for _ in weights]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Take a step against the gradients that the weights hold."""
        slopes = [w.grad for w in self.weights if w.grad is not None]  # none is missing
        adam(
            self.weights, slopes, self.means, self.squares, [], self.steps, fused=True, amsgrad=False, beta1=0.9,
            beta2=0.999, lr=learning_rate, weight_decay=0.0, eps=1e-8, maximize=False,
        )  # fmt: skip


def train(
    value: ValueFunction,
    data: Sequence[Samples],
    rng: np.random.Generator,
    *,
    loss: str = "poisson",
    epochs: int = 12,
    fewest_steps: int = 0,
    largest_batch: int = 2048,
    learning_rate: float = 3e-3,
) -> float:
    """Fit the fine and the coarse part to the same targets, in place, and return the last epoch's mean loss.

    With few data the batches are smaller, and there may be more epochs for `fewest_steps` gradient steps at least. That
    is for targets without noise, those of splitting: from noisy returns of a few roots, more steps learn the noise.

    Adam with a cosine-decayed step, in single precision for speed; what is learned is used in double precision. The
    frozen ln V of the Poisson loss is renewed every epoch. Deterministic for a given `rng`.
    """
    features = torch.as_tensor(np.concatenate([d.features for d in data]), dtype=torch.float32)
    targets = torch.as_tensor(np.concatenate([d.log_targets for d in data]), dtype=torch.float32)
    # Features are evaluated already; without them, what is turned to single precision is this function's own.
    learner = ValueFunction.from_arrays(torch.nn.Identity(), value.arrays()).float()
    with torch.no_grad():
        inputs = learner.inputs(features)
    batch_size = int(np.clip(len(targets) // 4, 64, largest_batch))
    epochs = max(epochs, -(-fewest_steps * batch_size // max(len(targets), 1)))
    weights = [*learner.fine.parameters(), *learner.coarse.parameters()]
    optimiser = _Adam(weights)
    last = float("nan")
    for epoch in range(epochs):
        rate = 0.5 * learning_rate * (1.0 + math.cos(math.pi * epoch / epochs))
        with torch.no_grad():
            frozen = learner.log_parts(*inputs)
        total = 0.0
        order = rng.permutation(len(targets))
        for start in range(0, len(order), batch_size):
            beat()
            rows = torch.as_tensor(order[start : start + batch_size])
            parts = learner.log_parts(*(x[rows] for x in inputs))
            error = sum(
                (loss_function(loss, part, targets[rows], f0[rows]) for part, f0 in zip(parts, frozen, strict=True)),
                start=torch.zeros(()),
            )
            learner.zero_grad()
            error.backward()
            torch.nn.utils.clip_grad_norm_(weights, 5.0)
            optimiser.step(rate)
            total += float(error.detach()) * len(rows)
        last = total / len(order)
    for own, learned in ((value.fine, learner.fine), (value.coarse, learner.coarse)):
        own.load_state_dict(learned.state_dict())  # copied into the double precision that is there
    return last
