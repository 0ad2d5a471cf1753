# One target a task; each sets up first, which costs nothing when nothing changed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo demo-controls test lint types embedded-models

setup: .venv/set-up

# Done again only when a requirement changes.
.venv/set-up: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,lora,embedded]'
	touch $@

# The whole loop on the embedded default, into runs/demo.
demo: setup
	$(BIN)/parityalign demo --run runs/demo

# The five controls beside it, as many optimiser steps each; longer.
demo-controls: demo
	$(BIN)/parityalign demo --run runs/demo --controls

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests

types: setup
	$(BIN)/mypy

# Trains the bundled teacher and student from nothing; resumable.
embedded-models: setup
	$(BIN)/python -m parityalign.embedded.recipe teacher
	$(BIN)/python -m parityalign.embedded.recipe student
