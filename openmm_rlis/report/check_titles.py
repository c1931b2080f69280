"""Check titles: what a report calls the checks of `diagnostics`, and what each is about."""

CHECKS = {
    "rounds": ("rounds of production", "Finished ones; without any there is no rate."),
    "lost": ("walkers lost", "Whether walkers came to places where coordinates or energies are not finite."),
    "settled": ("run in the source settled", "Whether the exit rate had stopped drifting before production began."),
    "transitions": ("transitions seen", "Weighted number of transitions in the record; without any there is no rate."),
    "tail_index": ("tail index", "How slowly the largest root contributions thin out; above 0.7 spread says little."),
    "largest_root_share": ("largest root", "Share of the transitions in the heaviest root; if much, it is luck."),
    "largest_batch_share": ("largest batch", "Share of the transitions in the heaviest batch; if much, it is luck."),
    "ended": ("norm of the weights", "Mean weight of all paths that ended, failures too; its expectation is 1."),
    "defence_score": ("roulette", "Roots without roulette against the others, in standard errors; needs both kinds."),
    "batch_halves_score": ("halves of the batches", "Odd against even batches, in standard errors."),
    "control_score": ("control variate", "Zero on average: what arrived against what is reported, in standard errors."),
    "round_halves_score": ("halves of the rounds", "Early against late rounds, in standard errors; drift shows here."),
    "inside_halves_score": ("time inside A", "Its share, early against late rounds, in standard errors."),
    "excursions_score": ("excursions", "Time outside the core, basin simulation against walks, in standard errors."),
    "exits_score": ("exits", "The batch whose exit rate is farthest from the others, in standard deviations."),
    "hidden_share": ("hidden channel", "Transitions that came by where V had all but given them up, as a share."),
    "late_share": ("long excursions", "Share of the time in state A in excursions that only the walks follow."),
    "thinned_share": ("cap on walkers", "Share of roots whose walkers came to the cap: V far too large somewhere."),
}
MORE = {
    "ess": ("effective sample size", "How many equally heavy successful roots would be as good."),
    "batch_tail_index": ("tail index of batches", "As the tail index, for batches; known from many batches on."),
}
