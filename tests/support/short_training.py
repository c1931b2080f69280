"""Runs that train V for a tenth of the steps: training is half of a small run, and no expectation depends on V."""

import pytest

from openmm_rlis.learning import learning_rounds

FEW = {"epochs": 4, "fewest_steps": 150}


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Make every training of this process short, until the patch is undone."""
    train = learning_rounds.train
    patch.setattr(learning_rounds, "train", lambda *given, **named: train(*given, **{**named, **FEW}))


@pytest.fixture(autouse=True)
def short_training(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only slow tests train as long as a run does."""
    if request.node.get_closest_marker("slow") is None:
        shorten(monkeypatch)
