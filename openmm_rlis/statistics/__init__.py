"""Estimators, weights, branching and diagnostics, in NumPy and SciPy only; readable as a paper."""
