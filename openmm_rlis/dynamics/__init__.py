"""Walkers in OpenMM Contexts: integrators, bias force, propagators and the engine above them."""
