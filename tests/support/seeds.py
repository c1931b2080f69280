"""Other random numbers for the stochastic tests: RLIS_TEST_SEED_OFFSET=1 adds 1000 to each of their fixed seeds.

Without it (offset 0) a red run can be repeated. With many offsets one sees how often a test fails that should not.
"""

import os

OFFSET = 1000 * int(os.environ.get("RLIS_TEST_SEED_OFFSET", "0"))


def with_offset(seed: int) -> int:
    """Return a fixed seed plus the offset that the environment asks for."""
    return seed + OFFSET
