"""Rate, channels and committor of LJ7 C3 -> C2, warm enough for a short run; read the results back as on a laptop."""

import numpy as np

import openmm_rlis as rlis
from openmm_rlis.systems import lj7

# (mu2, mu3) of the two lowest saddles between C3 and C2.
SADDLES = {"upper": np.array([0.5697, 0.1081]), "lower": np.array([0.5149, -0.0436])}


def channel(frames: np.ndarray) -> str:
    """Return the saddle that a path comes closest to, on the plane of mu2 and mu3."""
    points = lj7.plane(frames)
    return min(SADDLES, key=lambda name: float(np.linalg.norm(points - SADDLES[name], axis=1).min()))


if __name__ == "__main__":
    problem = lj7.build(source="C3", target="C2", others=("C0", "C1"), beta=7.0)
    rlis.run(problem, directory="run", seed=1, target_relative_error=0.2)

    result = rlis.load("run")
    low, high = result.rate.interval
    print(f"k = {result.rate.value:.3g} +- {result.rate.standard_error:.2g} per ps, 95 % in [{low:.3g}, {high:.3g}]")
    print(f"exits per ps {result.flux.value:.3g}, success probability {result.success_probability.value:.3g}")
    print("alarms:", result.diagnostics["alarms"] or "none")
    for name, share in result.channels(channel).items():
        print(f"channel {name}: {share.value:.2f} +- {share.standard_error:.2f} of the transitions")
    success = result.paths.success()
    path = success.to_mdtraj(int(np.argmax(success.weights)))
    print(f"{len(success)} success paths; the heaviest has {path.n_frames} frames over {path.time[-1]:.3g} ps")
    print("learned committor along it:", result.value.committor(path)[::10].round(3))
