"""A System of your own: one particle in an asymmetric double well, regions by a condition, rate by both methods."""

import openmm
from openmm import unit

import openmm_rlis as rlis


def make_problem() -> rlis.Problem:
    system = openmm.System()
    system.addParticle(40.0 * unit.amu)
    well = openmm.CustomExternalForce("h*((x/w)^2 - 1)^2 + tilt*x")  # minima near x = -w and x = w
    for name, value in (("h", 12.0), ("w", 0.5), ("tilt", 2.0)):
        well.addGlobalParameter(name, value)
    well.addParticle(0, [])
    system.addForce(well)
    return rlis.Problem(
        system,
        [[-0.52, 0.0, 0.0]] * unit.nanometer,
        source=rlis.Region.where(lambda x: x[:, 0, 0] < -0.4, "left"),
        target=rlis.Region.where(lambda x: x[:, 0, 0] > 0.4, "right"),
        temperature=300 * unit.kelvin,
        friction=10 / unit.picosecond,
        timestep=2 * unit.femtosecond,
        lag_steps=20,
        dimensions=1,
    )


if __name__ == "__main__":
    problem = make_problem()
    result = rlis.run(problem, "learned", seed=1, target_relative_error=0.1)
    brute = rlis.brute(problem, "brute", seed=2, target_relative_error=0.1)
    for name, found in (("branching", result), ("brute force", brute)):
        low, high = found.rate.interval
        cost = found.cost["force_evaluations"]["total"]
        print(f"{name:12s} k = {found.rate.value:.4g} [{low:.4g}, {high:.4g}] /ps from {cost:.2e} force evaluations")
    path = result.paths.success().to_mdtraj(0)
    print(f"committor along the first success path: {result.value.committor(path)[::5].round(4)}")
