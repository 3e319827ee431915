# The commands of the project; `make` alone lists them.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
DEMO_DIR ?= demo
CHAINS ?= 10000
NETWORKS ?= 1000
SEED ?= 0
TORCH_VERSIONS ?= 2.8.0 newest
PIP_ARGS ?=

BIN := $(VENV)/bin
ENV := $(VENV)/.complete
NOTEBOOKS := $(patsubst %.py,%.ipynb,$(wildcard tutorials/*.py))

ENGINE_TESTS := tests/autograd tests/networks tests/memory tests/numerics tests/test_properties.py
VERSION_ENVS := $(TORCH_VERSIONS:%=.venv-torch-%)

.DELETE_ON_ERROR:
.PHONY: help env test fuzz lint versions format demo bench gpu-check notebooks clean always

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

# Some versions of torch in turn, each in an environment .venv-torch-VERSION that is kept. PIP_ARGS can name an index of
# wheels for CPUs only, which spare some gigabytes each: --extra-index-url https://download.pytorch.org/whl/cpu
versions: $(VERSION_ENVS:%=%/.complete) ## run the engine's tests on the oldest and the newest torch (TORCH_VERSIONS, PIP_ARGS)
	@for e in $(VERSION_ENVS); do \
	    echo "Testing in $$e ..."; \
	    OMP_NUM_THREADS=1 $$e/bin/python -m pytest -q -n $(WORKERS) $(ENGINE_TESTS) >$$e/tests.log 2>&1 && \
	        touch $$e/.passed || { rm -f $$e/.passed; cat $$e/tests.log; }; \
	done; \
	failed=0; \
	for e in $(VERSION_ENVS); do \
	    test -e $$e/.passed || failed=1; \
	    echo "torch $$($$e/bin/python -c 'import torch; print(torch.__version__)'): $$(tail -n 1 $$e/tests.log)"; \
	done; \
	exit $$failed

# constraints.txt but for the pins of torch and its companion, so that torch alone differs.
.venv-torch-%/.complete: pyproject.toml constraints.txt
	@echo 'Preparing .venv-torch-$* (torch for CUDA has several gigabytes) ...'
	@$(PYTHON) -m venv .venv-torch-$*
	@grep -vE '^(torch|torchvision)==' constraints.txt >.venv-torch-$*/constraints.txt
	@.venv-torch-$*/bin/python -m pip install -qq --disable-pip-version-check $(PIP_ARGS) \
	    -c .venv-torch-$*/constraints.txt --upgrade 'torch$(patsubst %,==%,$(filter-out newest,$*))' -e '.[test]'
	@touch $@

.venv-torch-newest/.complete: always  # the newest of today, not of the day on which the environment was made

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
	rm -rf .venv-torch-* build dist demo *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -path './$(VENV)' -prune -o -name __pycache__ -prune -exec rm -rf {} +
