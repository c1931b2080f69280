"""Readers of files that nobody vouches for: bounded in memory, and nothing in them is run."""
