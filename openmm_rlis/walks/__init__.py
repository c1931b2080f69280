"""Branching walks from A, splitting without a value function, where walkers rest, and processes that share them."""
