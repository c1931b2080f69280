# Two commands do all the set-up: `make lj7` (the main job) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/lj7
# A file stays in one process, for what its tests share.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help lj7 test slow lint format types figures notebooks docs clean
.DEFAULT_GOAL := help

help:
	@echo "make lj7      install into .venv, compute the LJ7 rates C3 <-> C2 at beta 9, write $(RUN)/"
	@echo "make test     install into .venv if need be and run the tests, some 5 minutes"
	@echo "make slow     the long tests"
	@echo "make lint     ruff      make types   mypy      make format   ruff format"
	@echo "make figures  the figure of the README from $(RUN), some 4 minutes"
	@echo "make docs     the documentation, to docs/_build/html/; runs the tutorials first (make notebooks), some minutes"
	@echo "make clean    remove .venv, caches and build output (runs/ stays)"

# Made once; made again when pyproject.toml changes.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer needed; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -e .
	@touch $@

$(VENV)/.developer: $(VENV)/.installed
	$(BIN)/pip install -e ".[dev]"
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/pip install -e ".[docs]"
	@touch $@

# An interrupted run is carried on; a finished one is only reported again.
lj7: $(VENV)/.installed
	@if [ -e $(RUN) ]; then echo "$(RUN) exists: resuming it"; $(BIN)/rlis resume $(RUN); else \
	set -x; $(BIN)/rlis run lj7 --from C3 --to C2 --beta 9 --both --workers 2 --target-error 0.1 --seed 1 --out $(RUN); fi
	$(BIN)/rlis report $(RUN)

test: $(VENV)/.developer
	$(BIN)/pytest $(PARALLEL)

slow: $(VENV)/.developer
	$(BIN)/pytest -m slow $(PARALLEL)

lint: $(VENV)/.developer
	$(BIN)/ruff check .

format: $(VENV)/.developer
	$(BIN)/ruff format .

types: $(VENV)/.developer
	$(BIN)/mypy

figures: lj7
	@mkdir -p docs/figures
	$(BIN)/python docs/figures/lj7_paths.py $(RUN) docs/figures/lj7_paths.png

# Executed once and kept, until a code cell changes.
notebooks: $(VENV)/.docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -b dummy docs docs/_build/dummy

docs: notebooks
	$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build/html
	@echo "open docs/_build/html/index.html"

clean:
	rm -rf $(VENV) .ci/venv build dist docs/_build docs/results *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find openmm_rlis systems tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
