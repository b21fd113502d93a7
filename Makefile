PYTHON ?= python3
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/python -m
READY := $(VENV)/.ready
# Tests of one file share what they made: a process takes whole files. Each needs about a GiB.
PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install train grid dashboard test test-slow lint format benchmark clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14
	@echo
	@echo "Settings go into ARGS, e.g.: make train ARGS='model=cnn optim.lr=0.002'"

# A stamp inside the environment: the set-up runs again only when what it installs has changed.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Pixel Spotter needs Python 3.11 or newer; name one with PYTHON=, e.g.: make PYTHON=python3.12 train"; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(READY)  ## create .venv and install everything into it

train: $(READY)  ## train the default model (other settings: ARGS='...')
	$(RUN) pixel_spotter.train $(ARGS)

grid: $(READY)  ## run the blog's whole comparison; run it again to continue it
	$(RUN) pixel_spotter.train experiment=blog $(ARGS)

dashboard: $(READY)  ## open TensorBoard on outputs/
	$(VENV)/bin/tensorboard --logdir outputs $(ARGS)

test: $(READY)  ## run the tests (minutes)
	$(RUN) pytest $(PARALLEL) $(ARGS)

test-slow: $(READY)  ## run the long tests as well
	$(RUN) pytest -m '' $(PARALLEL) $(ARGS)

lint: $(READY)  ## check style, formatting and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(READY)  ## rewrite the code in the house style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

benchmark: $(READY)  ## measure training throughput side by side with plain loops
	$(VENV)/bin/python benchmarks/throughput.py $(ARGS)

clean:  ## remove the environment and caches; never touches outputs/
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find pixel_spotter tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
