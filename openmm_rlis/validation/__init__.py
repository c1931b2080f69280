"""Checks that try to prove a run wrong."""
