# Every target does all its own set-up: Python 3.11 or newer, make and git are enough. See `make help`.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The first of these that is at least 3.11; `make PYTHON=python3.12 test` takes another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
LOCK := $(wildcard requirements/lock-$(VERSION).txt)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix -c ,$(LOCK))
PYTEST_ARGS ?=
LOCKED_VERSIONS := 3.11 3.12 3.13

.PHONY: help
help:  ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 16

# Set-up. A stamp is newer than what it was made from: nothing is installed twice.

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it with make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-dev: pyproject.toml $(LOCK) | $(BIN)/python
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.stamp-plot

$(VENV)/.stamp-plot: pyproject.toml $(LOCK) | $(BIN)/python
	$(PIP_INSTALL) -e '.[plot]'
	@touch $@

.PHONY: demo
demo: $(VENV)/.stamp-plot  ## train PPO on CartPole-v1 until solved, evaluate it, draw its learning curve
	rm -rf demo/run
	$(BIN)/parnassus train ppo CartPole-v1 --steps 100_000 --seed 0 --run demo/run --target-return 475
	$(BIN)/parnassus evaluate demo/run --episodes 100
	$(BIN)/parnassus plot demo/run --output demo/curve.png

.PHONY: test test-all lint types
test: lint types  ## lint, types and the tests, but for near relatives of others
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not long' $(PYTEST_ARGS)

test-all: lint types  ## lint, types and every test
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.stamp-dev  ## ruff
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.stamp-dev  ## mypy
	$(BIN)/mypy

.PHONY: test-versions test-fast
test-fast: $(VENV)/.stamp-dev  ## the tests that are not slow
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow and not long' $(PYTEST_ARGS)

test-versions:  ## the fast tests on every Python from 3.11 to 3.13 that is found
	@found=0; failed=; for version in $(LOCKED_VERSIONS); do \
		for python in python$$version "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python; do \
			"$$python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$$version')" 2>/dev/null || continue; \
			found=1; echo "== Python $$version"; \
			$(MAKE) --no-print-directory test-fast PYTHON="$$python" VENV=.venv-$$version || failed="$$failed $$version"; \
			break; \
		done; \
	done; \
	test $$found = 1 || { echo "no Python from 3.11 to 3.13 was found" >&2; exit 1; }; \
	test -z "$$failed" || { echo "failed on Python$$failed" >&2; exit 1; }

.PHONY: lock
lock: $(BIN)/python  ## resolve the newest versions of everything, and write requirements/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.13'
	for version in $(LOCKED_VERSIONS); do \
		$(BIN)/uv pip compile pyproject.toml --extra dev --python-version $$version --upgrade --quiet \
			--no-python-downloads --no-annotate --no-header --output-file requirements/lock-$$version.txt || exit 1; \
	done

.PHONY: peers bench
peers:  ## install the libraries that the benchmarks compare with, each in its own environment
	benchmarks/peers/install.sh

bench: $(VENV)/.stamp-dev  ## measure this library beside its peers (after `make peers`)
	$(BIN)/python -m benchmarks.speed

.PHONY: clean
clean:  ## remove environments, caches, builds and the demo; runs/ stays
	rm -rf .venv .venv-3.* demo build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
