"""The estimators and what they rest on, in NumPy and SciPy only; readable as a paper."""
