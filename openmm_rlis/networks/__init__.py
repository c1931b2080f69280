"""Networks of states: the runs between all pairs of them, and the search for traps that belong among them."""
