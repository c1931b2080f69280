"""Positions as arrays: periodic boxes, and what is not finite."""
