# make demo             the whole path on a simulated travelling subject; results in demo_output/
# make demo SCAN=FILE   load, QC, mask, SH fit and maps of your own scan
# make test             the whole test suite, the real viewer included
# make lint, make bench, make docs, make wheel, make clean
#
# TORCH_INDEX=URL       where to take torch from (for example an index of CPU or CUDA builds)
# WORKERS=2             how many processes share the tests (0: no sharing)
# PYTHON=python3.12     which Python (3.11 or newer) makes the environment

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
TORCH_INDEX ?=
SCAN ?=
WORKERS ?= 2
OUT ?= demo_output
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test lint bench docs wheel clean setup
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^$$/q'

setup: $(READY)

$(READY): pyproject.toml constraints.txt scripts/setup.sh
	@PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" bash scripts/setup.sh
	@touch $@

demo: $(READY)
	@bash scripts/on-screen.sh $(BIN)/napari-dmri demo $(if $(SCAN),--scan "$(SCAN)") -o "$(OUT)"

# Two processes share the files of tests; each computes and draws with one thread, or they would
# fight for the cores.
test: $(READY)
	@ON_SCREEN=virtual OMP_NUM_THREADS=1 LP_NUM_THREADS=1 \
		bash scripts/on-screen.sh $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile \
		--no-loadscope-reorder --max-worker-restart 2 $(ARGS)

lint: $(READY)
	$(BIN)/python -m pip install -q --group lint
	$(BIN)/ruff check src tests benchmarks scripts
	$(BIN)/ruff format --check src tests benchmarks scripts
	$(BIN)/mypy
	$(BIN)/npe2 validate src/napari_dmri/napari.yaml

bench: $(READY)
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; \
		ON_SCREEN=virtual bash scripts/on-screen.sh $(BIN)/python $$file || exit 1; done

docs: $(READY)
	@ON_SCREEN=virtual bash scripts/on-screen.sh $(BIN)/python docs/make_pictures.py

wheel: $(READY)
	$(BIN)/python -m build --wheel

clean:
	rm -rf .venv build dist demo_output .pytest_cache .mypy_cache .ruff_cache
