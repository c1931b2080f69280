"""The run directory: rounds, checksums, the log, and what was spent."""
