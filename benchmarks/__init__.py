"""Studies of the package: `python -m benchmarks list` names them, `python -m benchmarks NAME [ARGUMENTS]` runs one."""
