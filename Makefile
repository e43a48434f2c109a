# make demo [PHOTOS=dir]   make test   make check   make bench   make bench-quality   make faults   make scale   make dist   make docs
# The first two need Python 3.11 or newer and a package registry, nothing else.
PYTHON ?= python3
BIN := .venv/bin
PHOTOS ?=
# Bytecode is kept, as an installed package has it: without it every command compiles clipkit first.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check bench bench-quality faults scale dist docs clean

demo: .venv/installed
	@$(BIN)/python docs/demo.py $(if $(PHOTOS),"$(PHOTOS)")

test: .venv/installed
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

bench: .venv/installed
	$(BIN)/python benchmarks/run.py

bench-quality: .venv/installed
	$(BIN)/python benchmarks/quality.py

faults: .venv/installed
	$(BIN)/python -m tests.support.fault_table

scale: .venv/installed
	CLIPKIT_SCALE=1 $(BIN)/python -m pytest tests/bulk/test_scale.py tests/bulk/test_embedding.py

dist: .venv/installed
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	CLIPKIT_DIST=dist $(BIN)/python -m pytest tests/dist

docs: .venv/installed
	$(BIN)/python docs/site.py

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "clipkit needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing clipkit with PyTorch into .venv: about 6 GB, which takes some minutes"
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo-photos dist build
