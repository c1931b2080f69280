"""The packages to install: those that are found, and the folder systems/ under the name of a package."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["openmm_rlis", "openmm_rlis.*"]), "openmm_rlis.systems"])
