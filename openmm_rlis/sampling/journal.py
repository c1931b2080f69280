"""Journal: what is stored of each stage of a run, with its cost and its seconds, and what is read of it again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..basin.inner_region import Core
from ..dynamics.engine import Engine
from ..learning.learning_rounds import LearningRound
from ..problem import Problem
from ..storage.array_names import prefixed
from ..storage.cost_meter import Meter
from ..storage.run_directory import RunDirectory
from .production import GroupRecord, contents


class Journal:
    """Writes the rounds of a run into its directory, and reads learning rounds from it.

    A round counts the seconds since the one before it was written.
    """

    def __init__(self, store: RunDirectory, meter: Meter, problem: Problem) -> None:
        self.store, self.meter, self.problem = store, meter, problem
        self.marked = time.monotonic()

    def unfinished_block(self, index: int) -> range:
        """Return the block that a process was killed while storing: it is made again, the same, to store the rest."""
        if index == 0:
            return range(0)
        first, n = self.store.read_round("production", index - 1).info.get("block", (index - 1, 1))
        return range(first, first + n) if first + n > index else range(0)

    def keep_block(self, rounds: range, groups: Sequence[Sequence[GroupRecord]]) -> None:
        """Store the production rounds of a block, of every group of batches, but for those that are stored."""
        by_round = dict(zip(rounds, zip(*groups, strict=True), strict=True))
        stored = self.store.rounds("production")
        cost = {index: sum(g.flux_evaluations + g.walk_evaluations for g in by_round[index]) for index in rounds}
        seconds = (time.monotonic() - self.marked) / max(sum(cost.values()), 1)  # of a force evaluation
        for index in rounds:
            if index not in stored:
                self._keep_records(index, by_round[index], rounds, seconds * cost[index])

    def _keep_records(self, index: int, groups: Sequence[GroupRecord], block: range, seconds: float) -> None:
        arrays, info, trees = contents(groups)
        parts = [group.state.arrays() for group in groups]
        state = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        cost = info["flux_evaluations"] + info["production_evaluations"]
        info["block"] = [block.start, len(block)]
        self.write("production", index, arrays | prefixed("state", state), info, cost, trees, seconds)

    def keep_learning_round(
        self, stage: str, index: int, lesson: LearningRound, engine: Engine, core: Core | None = None
    ) -> None:
        """Store a learning round, or the cold start with the core that it found, with the cost of its engine."""
        arrays = lesson.arrays() | (prefixed("core", core.arrays()) if core else {})
        cost = engine.cost.force_evaluations
        info = {**lesson.info, "learning_evaluations": cost, "network_calls": engine.cost.network_calls}
        self.write(stage, index, arrays, info, cost)

    def learning_round(self, stage: str, index: int) -> LearningRound:
        """Return a stored learning round."""
        stored = self.store.read_round(stage, index)
        return LearningRound.from_arrays(self.problem.features, stored.arrays, stored.info)

    def write(
        self,
        stage: str,
        index: int,
        arrays: Mapping[str, NDArray[Any]],
        info: Mapping[str, Any],
        evaluations: int,
        tree: Any = (),
        seconds: float | None = None,
    ) -> None:
        """Store a round and log it; without `seconds`, it took those since the one before."""
        now = time.monotonic()
        info = {**info, "evaluations": evaluations, "seconds": now - self.marked if seconds is None else seconds}
        self.store.write_round(stage, index, arrays, info, tree)
        self.marked = now
        spent = {"evaluations": self.meter.evaluations, "seconds": self.meter.seconds}
        self.store.log("round", stage=stage, index=index, **spent)
