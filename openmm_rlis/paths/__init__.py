"""Weighted transition paths and the trees that they are stored in."""
