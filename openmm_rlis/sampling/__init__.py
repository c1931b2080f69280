"""One run from start to result: stages, production rounds, brute force, and when to stop."""
