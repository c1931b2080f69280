"""Brute force on LJ7 with dynamics, forces and regions of its own, not those of the package: the reference for it.

python -m benchmarks brute FROM BETA SEED STEPS         one seed, of some STEPS steps in all after 2e8 that
                                                        settle; 1e9 take two minutes
python -m benchmarks brute table                        results/brute.md of what is recorded in results/brute.jsonl

512 copies of the cluster move by Euler-Maruyama in brute_lj7.c, which gcc compiles when this starts; a step
takes a twentieth of what it takes on OpenMM's Reference platform. Regions, time step and lag are those of `rlis run
lj7`. A copy that ends in another region than A goes back to where it was last in A, as in the package's own run in A
(see openmm_rlis/basin/exit_flux.py); k = transitions A -> B / time. Copies are independent, so their spread is the
error. Before a run, forces and regions are compared with those of the package on random structures. Transitions
C3 -> C2 are also counted by the saddle that they came closest to, for channels.py.
"""

from __future__ import annotations

import ctypes
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import BRUTE, brute_records, lj7_brute, save
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from lj7_channels import SADDLES

Array = NDArray[np.float64]
NAMES = ("C0", "C1", "C2", "C3")
TIMESTEP, LAG_STEPS, RADIUS = 5e-5, 20, 0.35
COPIES, CHUNK = 512, 16
STRIDE = 5
"""Lags between two looks at the saddles, as between two frames of a run: more frequent looks find closer places."""
SETTLE = 20.0
"""ps that every copy runs from the minimum of A before anything is counted."""


def compiled() -> ctypes.CDLL:
    """Return the functions of brute_lj7.c."""
    source = Path(__file__).with_name("brute_lj7.c")
    flags = ["-O3", "-march=native", "-ffast-math", "-fopenmp-simd", "-mprefer-vector-width=256"]
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/brute_lj7.so"
        subprocess.run(["gcc", *flags, "-shared", "-fPIC", str(source), "-o", library, "-lm"], check=True)
        found = ctypes.CDLL(library)
    array, number = np.ctypeslib.ndpointer(flags="C_CONTIGUOUS"), ctypes.c_double
    found.forces.argtypes = [ctypes.c_int, *[array] * 4]
    found.advance.argtypes = [ctypes.c_int, *[array] * 3, ctypes.c_int, number, number]
    found.regions.argtypes = [ctypes.c_int, *[array] * 3, number, *[array] * 2]
    return found


def regions(library: ctypes.CDLL, x: Array, y: Array, centers: Array) -> tuple[Array, NDArray[np.int32]]:
    """Return the sorted coordination numbers, largest first, of copies at x, y (n_chunks, 7, CHUNK), and for each copy
    (n_chunks, CHUNK) the number of its region, 1 .. 4 in the order of `NAMES`, or 0."""
    c, codes = np.empty_like(x), np.empty(x[:, 0].shape, dtype=np.int32)
    library.regions(len(x), x, y, centers, RADIUS, c, codes)
    return c, codes


def minima() -> Array:
    """Return the four minima (4, 2, 7)."""
    from openmm_rlis.systems import lj7

    return np.array([lj7.minima()[name][:, :2].T for name in NAMES])


def centers_of(library: ctypes.CDLL) -> Array:
    """Return the coordination numbers of the four minima (4, 7)."""
    x, y = (np.repeat(minima()[:, axis, :, None], CHUNK, axis=2) for axis in (0, 1))
    x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
    return regions(library, x, y, np.zeros((4, 7)))[0][:, :, 0].copy()


def check(library: ctypes.CDLL, centers: Array) -> None:
    """Compare forces and regions with those of the package, on structures near the minima and far from them."""
    import openmm

    from openmm_rlis.regions import label
    from openmm_rlis.systems import lj7

    rng = np.random.default_rng(1)
    flat = np.repeat(minima(), 4 * CHUNK, axis=0)
    flat += rng.uniform(0.0, 0.2, (len(flat), 1, 1)) * rng.standard_normal(flat.shape)
    flat[::7] *= 1.5  # some atoms beyond the wall
    x, y = (np.ascontiguousarray(flat[:, i].reshape(-1, CHUNK, 7).transpose(0, 2, 1)) for i in (0, 1))
    fx, fy = np.empty_like(x), np.empty_like(x)
    library.forces(len(x), x, y, fx, fy)
    found = np.stack([fx, fy]).transpose(1, 3, 2, 0).reshape(-1, 7, 2)
    codes = regions(library, x, y, centers)[1].ravel()
    structures = np.concatenate([flat, np.zeros_like(flat[:, :1])], axis=1).transpose(0, 2, 1)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(lj7.make_system(), openmm.VerletIntegrator(0.001), platform)
    for structure, force in zip(structures, found, strict=True):
        context.setPositions(structure)
        expected = context.getState(forces=True).getForces(asNumpy=True)._value
        np.testing.assert_allclose(force, expected[:, :2], rtol=1e-8, atol=1e-8)
    problem = lj7.build("C3", "C2", ("C0", "C1"))
    named = {region.name: region for region in (problem.source, problem.target, *problem.others)}
    np.testing.assert_array_equal(codes, label([named[name] for name in NAMES], structures))
    if set(codes) != {0, 1, 2, 3, 4}:
        raise RuntimeError(f"the check must see every region, not {set(codes)}")


def saddle_distances(c: Array) -> Array:
    """Return the distances (2, n_chunks, CHUNK) to the upper and the lower saddle C3 -> C2 in the plane of mu2 and mu3.

    `c` are coordination numbers (n_chunks, 7, CHUNK); as in examples/lj7_channels.py.
    """
    deviation = c - c.mean(1, keepdims=True)
    square = deviation * deviation
    place = np.stack([square.mean(1), (square * deviation).mean(1)])
    return np.array([np.hypot(*(place - np.reshape(SADDLES[name], (2, 1, 1)))) for name in ("upper", "lower")])


def simulate(source: str, beta: float, seed: int, steps: float) -> dict[str, Any]:
    """Return the time in ps of each copy that runs in `source` and its transitions to every other region."""
    library = compiled()
    centers = centers_of(library)
    check(library, centers)
    a = NAMES.index(source)
    x, y = (np.broadcast_to(minima()[a, axis][:, None], (COPIES // CHUNK, 7, CHUNK)).copy() for axis in (0, 1))
    streams = np.random.SeedSequence(seed).generate_state(4 * COPIES, np.uint64)
    spread = math.sqrt(2.0 * TIMESTEP / beta)
    last = np.stack([x, y])
    hits = np.zeros((5, *x[:, 0].shape), dtype=np.int64)
    near, upper = np.full((2, *x[:, 0].shape), np.inf), np.zeros(x[:, 0].shape, dtype=np.int64)
    settle = round(SETTLE / (TIMESTEP * LAG_STEPS))
    lags = round(steps / (LAG_STEPS * COPIES))
    started = time.time()
    for lag in range(settle + lags):
        library.advance(len(x), x, y, streams, LAG_STEPS, TIMESTEP, spread)
        c, code = regions(library, x, y, centers)
        inside = code == a + 1
        np.copyto(last[0], x, where=inside[:, None])
        np.copyto(last[1], y, where=inside[:, None])
        if source == "C3":
            near = np.where(inside, np.inf, np.minimum(near, saddle_distances(c)) if lag % STRIDE == 0 else near)
        ended = (code > 0) & (code != a + 1)
        if ended.any():
            np.copyto(x, last[0], where=ended[:, None])
            np.copyto(y, last[1], where=ended[:, None])
            if lag >= settle:
                chunk, lane = np.nonzero(ended)
                hits[code[ended], chunk, lane] += 1
                upper += ended & (code == 1 + NAMES.index("C2")) & (near[0] < near[1])
            near[:, ended] = np.inf
    if not np.isfinite(x).all():
        raise FloatingPointError("a copy has left the numbers: the time step is too long")
    counted = {name: hits[1 + i].ravel().tolist() for i, name in enumerate(NAMES) if name != source}
    return {
        "source": source, "beta": beta, "seed": seed, "steps": lags * LAG_STEPS * COPIES,
        "time_of_a_copy": lags * LAG_STEPS * TIMESTEP, "seconds": round(time.time() - started), "hits": counted,
        **({"C2_by_upper_saddle": upper.ravel().tolist()} if source == "C3" else {}),
    }  # fmt: skip


def table() -> None:
    """Write results/brute.md."""
    rows = [json.loads(line) for line in BRUTE.read_text().splitlines()]
    lines = [
        "Brute force on LJ7 by dynamics, forces and regions of its own; every region of C0 .. C3 ends a path. "
        "Commands: `python -m benchmarks brute FROM BETA SEED STEPS` for each row and seed, then "
        "`python -m benchmarks brute table`.", "",
        "| beta | from | to | rate (1/ps) | transitions | steps | seconds on one core | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for source, beta in sorted({(row["source"], row["beta"]) for row in rows}, key=lambda key: (key[1], key[0])):
        mine = brute_records(source, beta)
        for target in mine[0]["hits"]:
            k, e = lj7_brute(source, target, beta) or (0.0, 0.0)
            n, duration = sum(sum(row["hits"][target]) for row in mine), sum(row["time_of_a_copy"] for row in mine)
            # None seen: with a rate of 3 / T that has a chance of 5 %.
            value = f"{k:.4g} +- {e:.2g}" if n else f"below {3.0 / (COPIES * duration):.1g}"
            lines.append(
                f"| {beta:g} | {source} | {target} | {value} | {n} | {sum(r['steps'] for r in mine):.2g} | "
                f"{sum(r['seconds'] for r in mine)} | {', '.join(str(r['seed']) for r in mine)} |"
            )
    save("brute", lines)


def main(arguments: list[str]) -> None:
    """Run one seed and record it, or write the table."""
    if arguments == ["table"]:
        return table()
    source, beta, seed, steps = arguments[0], float(arguments[1]), int(arguments[2]), float(arguments[3])
    if any(row["seed"] == seed for row in brute_records(source, beta)):
        raise SystemExit(f"seed {seed} from {source} at beta {beta:g} is recorded: take another one")
    row = simulate(source, beta, seed, steps)
    with BRUTE.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(row)


if __name__ == "__main__":
    main(sys.argv[1:])
