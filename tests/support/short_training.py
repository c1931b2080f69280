"""Runs that train V for a tenth of the steps: training is half of a small run, and no expectation depends on V."""

import pytest

from openmm_rlis.learning import learning_rounds

FEW = {"epochs": 4, "fewest_steps": 150}


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Make every training of this process short, until the patch is undone."""
    train = learning_rounds.train
    patch.setattr(learning_rounds, "train", lambda *given, **named: train(*given, **{**named, **FEW}))
