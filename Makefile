# make help lists the targets. PYTHON is the interpreter the environment is made with.
PYTHON ?= python3
ENV := .venv
RUN := $(ENV)/bin/python
PYTEST := $(RUN) -m pytest
COVERAGE := --cov --cov-report=term
# Files share a project or a trained model, so each stays in one process; one thread each (tests/conftest.py). They are
# begun in the order of conftest.py: those that take long first. auto is a process per core, and with the plugin's tests
# one more, because protocols often wait.
WORKERS ?= auto
PARALLEL := --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help env env-dev demo demo-engine test-fast test coverage test-slow test-faults lint docs dist clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

env:  ## make or reuse the environment .venv (TORCH_BUILD=cpu or default overrides the choice of torch)
	@$(PYTHON) scripts/make_env.py

env-dev:  ## the same with the tools for lint and dist
	@$(PYTHON) scripts/make_env.py --extras scipion,test,dev

demo: env  ## from proposals and ten clicks to scored picks in a real Scipion project; scores and pages go to demo/
	@$(RUN) scripts/demo_scipion.py

demo-engine: env  ## simulate, train, pick, evaluate with the command line alone, two kinds of particles
	@$(RUN) scripts/demo.py

test-fast: env  ## a first answer while editing: the engine's tests, no Scipion
	$(PYTEST) -m "not slow and not long and not scipion" $(PARALLEL) tests

test: env  ## every test but the slow ones (WORKERS=1: one after another)
	$(PYTEST) -m "not slow" $(PARALLEL)

coverage: env  ## the same with a coverage summary, which takes a quarter longer
	$(PYTEST) -m "not slow" $(PARALLEL) $(COVERAGE)

test-slow: env-dev  ## the slow tests too (some need the package index)
	$(PYTEST) $(PARALLEL) $(COVERAGE)

test-faults: env  ## hostile files, names, numbers, disturbed runs: all of it; tables of 200,000 files and 300 faults
	$(PYTEST) tests/faults
	$(RUN) tests/faults/fuzz.py --inputs 11500 --seed 1
	$(RUN) tests/faults/disturb.py --faults 300 --seed 1
	$(RUN) tests/faults/disturb.py --scipion --faults 60 --seed 1

lint: env-dev  ## ruff, mypy, and the syntax of the first pages
	$(RUN) -m ruff check .
	$(RUN) -m mypy --follow-imports silent --exclude make_env engine/deepetpicker scripts benchmarks  # what they call, of the plugin too, is there as they call it
	@for page in README.rst engine/README.rst; do $(RUN) -m docutils --halt=2 --report=2 "$$page" /dev/null || exit 1; done

docs: env-dev  ## the pages of docs/ and the API reference, in docs/_build; a warning is an error
	rm -rf docs/api docs/_build
	$(RUN) -m sphinx -q -W --keep-going -b html docs docs/_build

dist: env-dev  ## source distributions and wheels of engine and plugin in dist/
	rm -rf dist build engine/build
	$(RUN) -m build --no-isolation --outdir dist engine
	$(RUN) -m build --no-isolation --outdir dist

clean:  ## remove the environment, the demo's results and everything built
	rm -rf $(ENV) demo dist build *.egg-info engine/build engine/*.egg-info .pytest_cache .ruff_cache .mypy_cache .coverage
	find engine deepetpicker_plugin tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
