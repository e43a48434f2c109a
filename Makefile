# make demo [PHOTOS=dir]   make test   make check   make bench
# The first two need Python 3.11 or newer and a package registry, nothing else.
PYTHON ?= python3
BIN := .venv/bin
PHOTOS ?=

.PHONY: demo test check bench clean

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

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "clipkit needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo-photos
