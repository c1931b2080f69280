"""Settings: every number that the sampler may be tuned by; none of them changes what is estimated, only its cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field

from .base import ConfigModel, validated


class Settings(ConfigModel):
    """How the sampler works: cost and variance depend on these numbers, the expected result does not."""

    n_batches: int = Field(20, ge=2, le=10_000)
    """Independent batches, each with its own run in A, exits and roots; the error bar comes from their spread."""
    replicas: int = Field(25, ge=1, le=100_000)
    """Replicas of the unbiased run in A, for each batch."""
    bias_scale: float = Field(0.0, ge=0.0, le=1.0)
    """Share s of the bias force 2 kT grad ln V that is applied; 0 leaves branching alone."""
    hold_steps: int = Field(10, ge=1, le=10_000)
    """Time steps for which one evaluation of the bias force is held."""
    window_low: float = Field(0.1, ge=0.0, lt=1.0)
    """Walkers with G = W u(x)/u(x_0) below this play roulette, u the importance; 0 never does."""
    window_high: float = Field(2.0, gt=1.0)
    """Walkers with G above this are split."""
    uniform_share: float = Field(0.2, gt=0.0, le=1.0)
    """Share of roots drawn from the pool of exits uniformly instead of in proportion to their importance."""
    coarse_share: float = Field(0.2, gt=0.0, lt=1.0)
    """Share of the coarse value function in the mixture that steers branching, (1 - e) V_fine + e V_coarse."""
    learning_rounds: int = Field(6, ge=0, le=1_000)
    """Rounds of walking and training before the value function is frozen; up to thrice as many where that pays."""
    failure_share: float = Field(0.01, ge=0.0, le=1.0)
    """Share of failing paths that is kept on disk."""
    defensive_share: float = Field(1.0, ge=0.0, le=1.0)
    """Share of roots whose walkers play no roulette: they see every channel, whatever V says."""
    core: bool = True
    """Start walks at an inner core of A where exits from A are rare (see `core`), unless a value function is given; the
    rate is that of A either way."""
    excursion_lags: int = Field(64, ge=0, le=1_000_000)
    """Lags for which the basin simulation follows an excursion from A (from its core); how long those last that take
    longer is counted by the walks (see `basin`)."""
    control: bool = True
    """Take from the arrivals what the noise did to V on the way, zero on average (see `control`): less variance."""
    unbiased_share: float = Field(0.5, ge=0.0, le=1.0)
    """Share of roots whose walkers feel no bias even when `bias_scale` is positive."""
    learning_roots: int = Field(400, ge=10, le=1_000_000)
    """Roots of one planned round of learning; rounds beyond take more."""
    loss: Literal["poisson", "itakura-saito"] = "poisson"
    """Loss of the value function."""
    decay: float = Field(0.95, ge=0.0, le=1.0)
    """lambda of the TD(lambda) targets that are mixed with the tree returns; 1 uses tree returns alone."""
    frame_stride: int = Field(5, ge=1, le=1_000_000)
    """A frame of a path is recorded every this many lags."""
    max_walkers: int = Field(200, ge=2)
    """More walkers of one root than this are thinned to this number by systematic resampling, without bias."""
    n_slots: int = Field(512, ge=1, le=1_000_000)
    """Walkers that one Context moves at a time."""
    backend: Literal["torch", "python-torch", "python"] | None = None
    """Bias backend; without one, the first that works."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Return validated settings; raises a one-line `InputError` that names the setting."""
        return validated(cls, values, "settings.")
