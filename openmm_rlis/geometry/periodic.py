"""Periodic boxes: vectors between atoms to the nearest image, and the features that take it.

    d -> d - h n,   n the integers for which |d - h n| is least      (h: the box vectors as columns)

Walkers are never wrapped, so the vector between two molecules may be many boxes long. The features of this package that
are made of vectors between atoms (distances, angles, dihedrals, contacts) take the nearest image in a `Problem` whose
System is periodic. Coordinates themselves (`features.positions`) are those of the unwrapped walker, and functions of
users are as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

NO_BOX = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
"""The box of features outside a periodic System."""


def nearest_image(d: Tensor, box: list[float]) -> Tensor:
    """Return vectors (3, ...) to the nearest image; `box` is ax, bx, by, cx, cy, cz of reduced box vectors in nm."""
    if box[0] <= 0.0:
        return d
    x, y, z = d[0], d[1], d[2]
    n = torch.round(z / box[5])
    x, y, z = x - n * box[3], y - n * box[4], z - n * box[5]
    n = torch.round(y / box[2])
    x, y = x - n * box[1], y - n * box[2]
    x = x - torch.round(x / box[0]) * box[0]
    if box[1] == 0.0 and box[3] == 0.0 and box[4] == 0.0:
        return torch.stack([x, y, z])
    # In a skewed box another of the images about this one may be nearer.
    nearest, least = torch.stack([x, y, z]), x * x + y * y + z * z
    for i in range(-1, 2):
        for j in range(-1, 2):
            for k in range(-1, 2):
                u = x + (i * box[0] + j * box[1] + k * box[3])
                v, w = y + (j * box[2] + k * box[4]), z + k * box[5]
                square = u * u + v * v + w * w
                nearer = square < least
                nearest = torch.where(nearer, torch.stack([u, v, w]), nearest)
                least = torch.where(nearer, square, least)
    return nearest


class InBox(nn.Module):
    """A feature that is made of vectors between atoms."""

    def __init__(self) -> None:
        super().__init__()
        self.box = list(NO_BOX)


def set_box(module: nn.Module, cell: Sequence[Sequence[float]] | None) -> nn.Module:
    """Let the parts of a feature that take nearest images do so in a box, (3, 3) in nm; None changes nothing."""
    if cell is not None:
        for part in _parts(module):
            part.box = _six(cell)
    return module


def in_box(module: nn.Module, cell: Sequence[Sequence[float]], copies: dict[int, Any]) -> nn.Module:
    """Return a feature that takes nearest images in a box, (3, 3) in nm: itself if it does already, or else a copy.

    `copies` holds what was copied before, so that features which share a module still do.
    """
    if all(part.box == _six(cell) for part in _parts(module)):
        return module
    made: nn.Module = copy.deepcopy(module, copies)
    return set_box(made, cell)


def _parts(module: nn.Module) -> list[InBox]:
    return [part for part in module.modules() if isinstance(part, InBox)]


def _six(cell: Sequence[Sequence[float]]) -> list[float]:
    a, b, c = cell
    return [float(a[0]), float(b[0]), float(b[1]), float(c[0]), float(c[1]), float(c[2])]
