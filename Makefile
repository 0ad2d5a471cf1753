# One target a task; each sets up first, which costs nothing when nothing changed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo demo-controls demo-objectives demo-http test test-fast test-gpu search lint types embedded-models embedded-models-apart bench-intake bench-loop bench-startup
.PHONY: conformance conformance-torchvision test-newest test-cases

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

# What each term of the objective is worth: 21 trainings on the demo's pairs; writes docs/results-objectives.md.
demo-objectives: demo
	$(BIN)/python benchmarks/objectives.py runs/demo

# The demo twice, greedily: the teacher behind `transformers serve`, and in this process. PICTURES=20 makes it small.
demo-http: setup
	$(BIN)/python -m pip install -c constraints.txt -e '.[serving]'
	$(BIN)/python -m pytest -m served tests/test_served.py

# One thread a process: the models of the tests are so small that threads mostly wait for each other.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
# Whoever has nothing left to do takes tests of the other; until then a file's tests, and what they share, stay together.
SPREAD := -n $(WORKERS) --dist worksteal

test: setup
	$(PYTEST) $(SPREAD)

# What takes under a minute: everything but the tests marked slow.
test-fast: setup
	$(PYTEST) $(SPREAD) -m 'not served and not slow'

# Troubles from public reports and attacks of our own, each as a small input and a script; CASE=05-disk runs one.
test-cases: setup
	PARITYALIGN=$(CURDIR)/$(BIN)/parityalign tests/cases/run.sh $(CASE)

# Models, training, losses, decoding and discrepancy on the GPU, which every other target hides; one process.
test-gpu: setup
	PARITYALIGN_TEST_GPU=1 $(PYTEST) -m gpu

# The suite with what pip would install today: the newest of every dependency, in an environment of its own.
# torch alone stays as in constraints.txt, since a newer one is a build of several GB on machines that have no build of
# it for CPUs; `make test-newest TORCH=` takes the newest of that too.
TORCH ?= $(shell grep '^torch==' constraints.txt)
NEWEST := .venv-newest/bin
SHOWN := accelerate|datasets|httpx2|huggingface_hub|numpy|peft|pydantic|tokenizers|torch|transformers

test-newest:
	test -x $(NEWEST)/python || $(PYTHON) -m venv .venv-newest
	$(NEWEST)/python -m pip install --upgrade --upgrade-strategy eager -e '.[dev,lora,embedded]' $(TORCH)
	$(NEWEST)/python -m pip list | grep -E '^($(SHOWN)) '
	OMP_NUM_THREADS=1 $(NEWEST)/python -m pytest -q $(SPREAD)

# Properties on examples that nobody has drawn before.
search: setup
	$(PYTEST) $(SPREAD) --hypothesis-profile=search

# Doors through which texts of strangers come in, each searched for SECONDS for inputs that break it; TARGET=replies one.
SECONDS ?= 300
.PHONY: fuzz
fuzz: setup
	$(BIN)/python tools/fuzz.py --seconds $(SECONDS) $(TARGET)

lint: setup
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools

types: setup
	$(BIN)/mypy

# Trains the bundled teacher and student from nothing; resumable.
embedded-models: setup
	PYTHONPATH=tools $(BIN)/python -m demo_models.recipe teacher
	PYTHONPATH=tools $(BIN)/python -m demo_models.recipe student

# Draws every picture that they learnt from once more and compares it with the demo's.
embedded-models-apart: setup
	PYTHONPATH=tools $(BIN)/python -m demo_models.apart

# Intake of 10,000 and of 100,000 drawn pictures: images a second and peak memory.
bench-intake: setup
	$(BIN)/python benchmarks/intake.py

# How long a command takes to begin, beside the bare libraries, and answers scored a second.
bench-startup: setup
	$(BIN)/python benchmarks/startup.py

# Annotate and identify on 2,000 drawn pictures, beside the way of the method's first release: times and their ratio.
bench-loop: setup
	$(BIN)/python benchmarks/loop.py

# Every family of models held to the same checks; writes docs/models.md.
conformance: setup
	$(BIN)/python benchmarks/conformance.py

# The same in an environment that has torchvision, which comes with a torch for GPUs: several GB.
conformance-torchvision:
	test -x .venv-torchvision/bin/python || $(PYTHON) -m venv .venv-torchvision
	.venv-torchvision/bin/python -m pip install -c constraints.txt -e '.[dev,lora,embedded]' torchvision
	mkdir -p build
	.venv-torchvision/bin/python benchmarks/conformance.py build/models-torchvision.md
