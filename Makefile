# The commands of the project; `make` alone lists them.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
DEMO_DIR ?= demo
CHAINS ?= 10000
NETWORKS ?= 1000
SEED ?= 0

BIN := $(VENV)/bin
ENV := $(VENV)/.complete
NOTEBOOKS := $(patsubst %.py,%.ipynb,$(wildcard tutorials/*.py))

.DELETE_ON_ERROR:
.PHONY: help env test fuzz lint format demo bench gpu-check notebooks clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(ENV) ## create .venv with the package and all that its tests need (PYTHON=python3)

$(ENV): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo 'make env: Python 3.10 or newer is needed. Name one: make env PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo 'make env: $(PYTHON) cannot create environments (no venv or no ensurepip). Install them' \
	        '(Debian, Ubuntu: apt install python3-venv) or name another: make env PYTHON=/path/to/python3' >&2; exit 1; }
	@echo 'Creating $(VENV) ...'
	@$(PYTHON) -m venv $(VENV)
	@echo 'Installing the package and all that its tests need (some minutes when nothing is cached) ...'
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
	@echo '$(VENV) is ready.'

test: lint ## check style and types, then run all tests (WORKERS=2)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) tests

fuzz: env ## random chains and networks against stored ones, an hour or so (CHAINS=10000 NETWORKS=1000 SEED=0)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --chains $(CHAINS) --networks $(NETWORKS) --seed $(SEED)

lint: env ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy monai_invertible

format: env ## put the source in order
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

demo: env ## from sample data to a trained network and its picture (DEMO_DIR=demo)
	$(BIN)/python benchmarks/reconstruction.py --quick --output $(DEMO_DIR)

bench: env ## measure memory and time against the alternatives
	$(BIN)/python -m benchmarks

gpu-check: env ## on a machine with a GPU: its tests, and the engine measured there (8 minutes)
	$(BIN)/python benchmarks/gpu_check.py

notebooks: $(NOTEBOOKS) ## run the tutorials that have changed and write them as tutorials/*.ipynb

tutorials/%.ipynb: tutorials/%.py | $(ENV)
	@echo 'Running $< (some minutes) ...'
	@$(BIN)/jupytext --quiet --to notebook --set-kernel python3 --output $@.part.ipynb $<
	@$(BIN)/jupyter execute --inplace --timeout=-1 $@.part.ipynb || { rm $@.part.ipynb; exit 1; }
	@mv $@.part.ipynb $@

clean: ## remove all that these targets made, but for .venv and the notebooks
	rm -rf build dist demo *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -path './$(VENV)' -prune -o -name __pycache__ -prune -exec rm -rf {} +
