"""What is read from an openmm.System, checked in it and written of it."""
