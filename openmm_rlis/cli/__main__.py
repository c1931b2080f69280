"""`python -m openmm_rlis.cli` is `rlis`."""

from .command_line import main

if __name__ == "__main__":
    main()
