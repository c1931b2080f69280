"""Settings for the whole test run: one torch thread, and no gpu test without a CUDA device.

Hypothesis has no deadline (a busy machine is not a failure) and takes the same examples every time, so that a red run
can be repeated; other examples are tried with `--hypothesis-profile=explore`.
"""

from pathlib import Path

import hostile
import pytest
import torch
from hypothesis import settings

from openmm_rlis import cli

torch.set_num_threads(1)
settings.register_profile("explore", deadline=None, max_examples=500)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked gpu where torch sees no CUDA device."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def finished_well(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run of a double well from files; copy it before changing it."""
    folder = tmp_path_factory.mktemp("well")
    assert cli.execute(["run", str(hostile.write_well(folder)), "--out", str(folder / "run")]) == 0
    return folder / "run"
