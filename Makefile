# Every target sets up what it needs; a second run is quick.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LINT_READY := $(VENV)/.lint-ready

.PHONY: help demo figures test lint clean

help:  ## Show the targets
	@awk -F ':.*## ' '/^[a-z_-]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@

$(LINT_READY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,lint]"
	touch $@

demo: $(READY)  ## Fit Popularity, Markov, GRU4Rec and the Oracle on generated sessions, compare and draw them
	$(BIN)/python scripts/demo.py

figures: $(READY)  ## Draw all pictures of the demo's runs anew, after running the demo where there are none
	test -d lightning_logs/demo-comparison || $(BIN)/python scripts/demo.py
	$(BIN)/python scripts/figures.py --runs $(addprefix lightning_logs/demo-,gru4rec markov popularity oracle) \
		--output lightning_logs/demo-figures

test: $(READY)  ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal

lint: $(LINT_READY)  ## Check style and types
	$(BIN)/ruff check sessrec scripts tests
	$(BIN)/ruff format --check sessrec scripts tests
	$(BIN)/mypy sessrec scripts

clean:  ## Remove the virtual environment and caches, but no runs and no data
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find sessrec scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
