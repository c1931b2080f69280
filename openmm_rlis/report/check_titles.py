"""Check titles: title and one-line description of each check of `diagnostics` in a report."""

CHECKS = {
    "rounds": ("production rounds", "Number of finished rounds; without one there is no rate."),
    "lost": ("walkers lost", "Walkers whose coordinates or energies became non-finite."),
    "settled": ("basin simulation equilibrated", "Whether the exit rate had stopped drifting before production."),
    "transitions": ("transitions", "Weighted number of transitions; without one the rate is only bounded from above."),
    "tail_index": ("tail index", "Tail exponent k of the root contributions; above 0.7 the error bar is unreliable."),
    "largest_root_share": ("largest root", "Share of the transition weight in the largest root contribution."),
    "largest_batch_share": ("largest batch", "Share of the transition weight in the largest batch."),
    "ended": ("norm of the weights", "Weight of all ended paths over the weight of the roots; expectation 1."),
    "defence_score": ("roulette", "Rate from defensive roots (no roulette) minus the other rate, in standard errors."),
    "batch_halves_score": ("halves of the batches", "Rate of odd minus even batches, in standard errors."),
    "control_score": ("control variate", "Sum of the control variate, expectation 0, in standard errors."),
    "round_halves_score": ("halves of the rounds", "Early minus late rounds, in standard errors; detects drift."),
    "inside_halves_score": ("time inside A", "Share of time inside A, early minus late rounds, in standard errors."),
    "excursions_score": ("excursions", "Time outside the core, basin simulation minus walks, in standard errors."),
    "exits_score": ("exits", "Largest deviation of a batch's exit rate from the mean, in standard deviations."),
    "hidden_share": ("hidden channel", "Share of the transition weight that passed through G < window_low/3."),
    "late_share": ("long excursions", "Share of the time in state A in excursions longer than excursion_lags."),
    "thinned_share": ("maximum of walkers", "Share of roots that reached max_walkers: V far too large in places."),
}
MORE = {
    "ess": ("effective sample size", "Number of equally weighted successful roots with the same variance."),
    "batch_tail_index": ("tail index of batches", "Tail index over batches; needs 25 batches."),
}
