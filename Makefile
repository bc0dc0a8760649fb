# make env    set-up only: .venv with the locked packages, mmcv's ops compiled, this package editable
# make demo   draws the shapes data set, trains Mask R-CNN with MSVMamba-N on it, evaluates, saves pictures (about 15 minutes on two busy cores)
# make test   the test suite, about ten minutes on two cores
# make test-slow   the tests that take longest: the Triton kernels interpreted and compiled, trainings of swapped configs, guides line by line, two dozen configs of the libraries, benchmarks
# make env-originals   .venv-originals with torch 2.1.2 and the original OpenMMLab packages, as most existing projects have them
# make test-originals  the whole test suite there
# make lint   ruff
# make kernels-full  the Triton kernels, without a GPU: every target, dtype and size with the locked Triton, every target with others (TRITONS)
# make bench  CPU benchmarks, written to benchmarks/results/

# The locked set is for CPUs: a GPU that happens to be there stays out of it.
export CUDA_VISIBLE_DEVICES :=

PYTHON ?= python3.11
VENV ?= .venv
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
BIN := $(VENV)/bin
# The folder of the second environment, which has the original packages.
ORIGINALS ?= .venv-originals

.PHONY: env demo test test-slow env-originals test-originals lint kernels-full bench clean

# $(call environment,FOLDER,SUFFIX): an environment from requirements/build-SUFFIX.txt and requirements/lock-SUFFIX.txt
define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { echo \
	  'The locked set is for Python 3.11, and "$(PYTHON)" is not that. Install Python 3.11 or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11.' \
	  'To use another Python, install into your own OpenMMLab environment: see "Into an existing project" in README.md.' >&2; exit 1; }
	@command -v g++ >/dev/null || { echo 'Compiling the ops of mmcv needs g++. Install it, e.g. apt-get install g++.' >&2; exit 1; }
	$(PYTHON) -m venv $(1)
	$(1)/bin/pip install -q -r requirements/build-$(2).txt
	@echo 'Installing the OpenMMLab packages; compiling the ops of mmcv takes about five minutes the first time.'
	MAX_JOBS=$(JOBS) CFLAGS=-g0 CXXFLAGS=-g0 $(1)/bin/pip install -q --no-deps --no-build-isolation -r requirements/lock-$(2).txt
	# pip caches the compiled mmcv under its source, whatever torch it was compiled for: a misfit is compiled anew
	$(1)/bin/python -c 'import mmcv.ops' 2>/dev/null || MAX_JOBS=$(JOBS) CFLAGS=-g0 CXXFLAGS=-g0 $(1)/bin/pip install -q --no-deps \
	  --no-build-isolation --no-cache-dir --force-reinstall $$(grep -iE '^(onedl-)?mmcv==' requirements/lock-$(2).txt)
	$(1)/bin/pip install -q --no-deps --no-build-isolation -e .
	$(1)/bin/python tools/check_env.py
	@touch $@
endef

env: $(VENV)/.ready

env-originals: $(ORIGINALS)/.ready

$(VENV)/.ready: requirements/build-cpu-py311.txt requirements/lock-cpu-py311.txt pyproject.toml
	$(call environment,$(VENV),cpu-py311)

$(ORIGINALS)/.ready: requirements/build-originals-py311.txt requirements/lock-originals-py311.txt pyproject.toml
	$(call environment,$(ORIGINALS),originals-py311)

demo: env
	$(BIN)/python tools/demo.py

# A process takes a file at a time, in the order that tests/conftest.py gives them.
PYTEST := -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test: env
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m 'not slow'

test-slow: env
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m slow

test-originals: env-originals
	OMP_NUM_THREADS=1 $(ORIGINALS)/bin/python $(PYTEST)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Other releases of Triton to run the tests of the kernels with, beside the locked one.
TRITONS ?= 3.3.1 3.4.0 3.6.0
KERNEL_TESTS := -m pytest -q -rPs tests/kernels/test_triton_processes.py

kernels-full: env
	KERNELS_COMPILED=full $(BIN)/python $(KERNEL_TESTS)
	set -e; for version in $(TRITONS); do \
	  $(BIN)/pip install -q --no-deps --upgrade --target build/triton-$$version triton==$$version; \
	  KERNELS_COMPILED=targets PYTHONPATH=build/triton-$$version $(BIN)/python $(KERNEL_TESTS); \
	done

bench: env
	$(BIN)/pip install -q --no-deps -r requirements/bench.txt
	$(BIN)/python benchmarks/run.py --out benchmarks/results/cpu.json

clean:
	rm -rf $(VENV) $(ORIGINALS) build dist *.egg-info
