# One target a task; each sets up first, which costs nothing when nothing changed.
PYTHON ?= python3
BIN := .venv/bin
# Python keeps what it compiles, also where it was told not to: setting up compiles nothing (--no-compile), and each
# process that a test starts would compile torch and transformers anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo demo-controls demo-objectives demo-strong demo-http test test-fast test-gpu search lint types embedded-models embedded-models-apart bench-intake bench-judging bench-loop bench-startup bench-ahead bench-filters bench-level bench-rows bench-gpu bench-plan
.PHONY: test-vllm conformance conformance-torchvision wheel test-wheel test-oldest test-newest test-cases kills

setup: .venv/set-up

# Done again only when a requirement changes.
.venv/set-up: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt --no-compile -e '.[dev,lora]'
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

# The levelled student as the student of nine more runs, on pictures that it has not seen; writes docs/results-strong-student.md.
demo-strong: demo
	$(BIN)/python benchmarks/strong_student.py runs/demo

# When picking gaps pays: five runs of the demo, then trainings for hours, two at a time with one thread each; it may be
# stopped and started at any time. Writes docs/results-picking.md, its figure and the numbers in reports of runs
# (src/parityalign/report/picking.json) from the records in docs/study/; study-page does that alone.
.PHONY: study study-page
study: setup
	$(BIN)/python benchmarks/study.py

study-page: setup
	$(BIN)/python benchmarks/study.py --page-only

# The demo twice, greedily: the teacher behind `transformers serve`, and in this process. PICTURES=20 makes it small.
demo-http: setup
	$(BIN)/python -m pip install -c constraints.txt -e '.[serving]'
	$(BIN)/python -m pytest -m served tests/test_served.py

# The same server, which a run starts and which is killed: its greedy replies are the local model's, before and after.
.PHONY: test-http
test-http: setup
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[serving]'
	$(PYTEST) -m served -k starts_the_server tests/test_served.py

# A real vLLM, in an environment of its own, that runs start themselves and that is killed on the way: minutes on a CPU.
VLLM ?= vllm
test-vllm: setup
	PARITYALIGN_VLLM="$(VLLM)" $(PYTEST) -m served tests/test_vllm.py

# A real lmms-eval, in an environment of its own, reads a run's samples and scores the same answers. It takes torch and all else
# that this package has too from .venv; besides only what its code for evaluating and reading imports.
LMMS_EVAL ?= lmms-eval==0.7.3
.PHONY: test-lmms-eval
test-lmms-eval: setup
	$(BIN)/python -m venv --clear .venv-lmms-eval
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$(.venv-lmms-eval/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/venv.pth"
	.venv-lmms-eval/bin/python -m pip install --quiet evaluate 'filelock<4' loguru pytz sacrebleu tenacity
	.venv-lmms-eval/bin/python -m pip install --quiet --no-deps $(LMMS_EVAL)
	PARITYALIGN_LMMS_EVAL=$(CURDIR)/.venv-lmms-eval/bin/python $(PYTEST) -m evaluator tests/test_lmms_eval.py

# One thread a process: the models of the tests are so small that threads mostly wait for each other. A third process on
# two cores works while others wait.
WORKERS ?= 3
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
# Whoever has nothing left to do takes tests of the other; until then a file's tests, and what they share, stay together.
SPREAD := -n $(WORKERS) --dist worksteal

test: setup .venv/compiled
	$(PYTEST) $(SPREAD)

# All that the tests import, compiled by one process: each of several that begin together would compile it for itself.
.venv/compiled: .venv/set-up
	$(PYTEST) --collect-only >/dev/null || true  # what is wrong with a test the suite will say
	touch $@

# Everything but the tests marked slow.
test-fast: setup .venv/compiled
	$(PYTEST) $(SPREAD) -m 'not long and not kills and not served and not browser and not cluster and not evaluator and not slow'

# What takes too long for every time: a run cut off at each write, processes that train together, the newest families.
.PHONY: test-long
test-long: setup .venv/compiled
	$(PYTEST) $(SPREAD) -m 'long and not browser'

# Replicas on clusters of this machine alone: actors, replicas and whole clusters are killed on the way.
.PHONY: test-ray
test-ray: setup
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[ray]'
	$(PYTEST) -rs -m cluster tests/test_on_ray.py

# Viewer and report in a real Chromium, which has to be on this machine (Debian: apt-get install chromium); screenshots of
# all pages lie in build/viewer. VIEWED="browser and not long" leaves out what takes long.
VIEWED ?= browser
.PHONY: test-view
test-view: setup
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[browser]'
	$(PYTEST) -rs -s -m "$(VIEWED)" tests/test_viewer_in_a_browser.py tests/test_report_in_a_browser.py

# The pictures of the documents, of the demo's run: looked at before they are committed.
.PHONY: screenshots
screenshots: demo
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[browser]'
	SHOWN_RUN=runs/demo DOCS_PICTURES=docs/pictures $(PYTEST) -m browser tests/test_screenshots.py

# The documents as a site, in build/site; a link that leads nowhere ends it.
.PHONY: docs
docs: setup
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	$(BIN)/python tools/docs_site.py build/pages
	$(BIN)/python -m mkdocs build --quiet

# Troubles from public reports and attacks of our own, each as a small input and a script; CASE=05-disk runs one.
test-cases: setup
	PARITYALIGN=$(CURDIR)/$(BIN)/parityalign tests/cases/run.sh $(CASE)

# Kills small runs at random moments, resumes them and compares; KILLS of local models and SERVED of a served teacher.
KILLS ?= 200
SERVED ?= 50
kills: setup
	$(PYTEST) -m kills
	OMP_NUM_THREADS=1 $(BIN)/python tools/kills.py --kills $(KILLS) --served $(SERVED)

# Models, training, losses, decoding and discrepancy on the GPU, which every other target hides; one process.
test-gpu: setup
	PARITYALIGN_TEST_GPU=1 $(PYTEST) -m gpu

# The next three test what users install, the wheel, each in a fresh environment that has no path to the sources.
# torch stays as in constraints.txt, since on machines that have no build of it for CPUs pip would take several GB;
# TORCH=torch takes the newest that pip finds, TORCH=torch==2.6.0 the oldest. TESTS="tests/test_hf.py" runs these tests only.
TORCH ?= $(shell grep '^torch==' constraints.txt)
WHEEL := .venv-wheel/bin
OLDEST := .venv-oldest/bin
NEWEST := .venv-newest/bin
TESTS ?=
USERS_EXTRAS := --extra lora --extra datasets --extra pandas --extra smolvlm --extra xlsx

# Builds wheel and sdist into dist/ and compares them.
wheel:
	PYTHON=$(PYTHON) tools/wheel.sh

# The wheel with no extra: a small demo has to end well.
test-wheel: wheel
	$(PYTHON) -m venv --clear .venv-wheel
	$(WHEEL)/python -m pip install --quiet -c constraints.txt dist/*.whl $(TORCH)
	$(WHEEL)/python -P tools/installed_demo.py

# The demo and the fast tests with the lowest version of each package that pyproject.toml allows; the tools of the tests are new.
test-oldest: wheel
	$(PYTHON) -m venv --clear .venv-oldest
	$(OLDEST)/python -m pip install --quiet uv
	echo '$(TORCH)' > .venv-oldest/torch.txt
	$(OLDEST)/uv pip compile --quiet --resolution lowest-direct --no-annotate --no-header $(USERS_EXTRAS) \
		--constraint .venv-oldest/torch.txt --output-file .venv-oldest/oldest.txt pyproject.toml
	$(OLDEST)/python -m pip install --quiet -c .venv-oldest/oldest.txt "$$(echo dist/*.whl)[dev,lora]" '$(TORCH)'
	$(OLDEST)/python -P tools/installed_demo.py
	OMP_NUM_THREADS=1 $(OLDEST)/python -m pytest -q $(SPREAD) $(or $(TESTS),-m 'not long and not kills and not served and not browser and not cluster and not evaluator and not slow')

# The demo and the suite with what pip would install today.
test-newest: wheel
	$(PYTHON) -m venv --clear .venv-newest
	$(NEWEST)/python -m pip install --quiet "$$(echo dist/*.whl)[dev,lora]" '$(TORCH)'
	$(NEWEST)/python -P tools/installed_demo.py
	OMP_NUM_THREADS=1 $(NEWEST)/python -m pytest -q $(SPREAD) $(TESTS)

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

# The rules of identify against a person's judgements, and against drawn truth.
bench-judging: setup
	$(BIN)/python benchmarks/judging.py build/judging

# How long a command takes to begin, beside the bare libraries, and answers scored a second.
bench-startup: setup
	$(BIN)/python benchmarks/startup.py

# Annotate and identify on 2,000 drawn pictures, beside the way of the method's first release: times and their ratio.
bench-loop: setup
	$(BIN)/python benchmarks/loop.py

# Two replicas on a Ray cluster of this machine beside one: answers a second, and whether they are equal.
.PHONY: bench-ray
bench-ray: setup
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[ray]'
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/on_ray.py

# Whether the model waits for pictures: both asleep 20 ms each, together beside the longer of the two alone; 1 is perfect.
bench-ahead: setup
	$(BIN)/python benchmarks/ahead.py

# Levelling beside TRL's SFTTrainer on the same rows: examples a second and peak memory, real classes, tiny weights.
bench-level: setup
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/level.py

# Training with questions about a picture in one row, beside the same with a row each: steps a second, in one process.
bench-rows: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/shared_rows.py

# How far `parityalign plan` is off: the demo's run with fewer pictures, planned, done and planned again.
bench-plan: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/plan.py

# Real size on one GPU beside plain transformers and TRL, within ten minutes and without network; writes docs/results-gpu.md.
# Without a GPU sizes are tiny, and nothing is written. Parts without trl or bitsandbytes say so.
bench-gpu: setup
	$(BIN)/python benchmarks/gpu.py $(if $(shell command -v nvidia-smi),--out docs/results-gpu.md)

# What each filter of verify costs and brings, on 300 pictures a world; writes docs/results-filters.md.
bench-filters: setup
	$(BIN)/python benchmarks/filters.py build/filters

# Teacher and student on a data set that nobody here drew, downloaded from PyPI; writes docs/results-easy-vqa.md. An hour.
easy-vqa: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/easy_vqa.py build/easy-vqa

# Every family of models held to the same checks; writes docs/models.md.
conformance: setup
	$(BIN)/python benchmarks/conformance.py

# The same in an environment that has torchvision, which comes with a torch for GPUs: several GB.
conformance-torchvision:
	test -x .venv-torchvision/bin/python || $(PYTHON) -m venv .venv-torchvision
	.venv-torchvision/bin/python -m pip install -c constraints.txt -e '.[dev,lora]' torchvision
	mkdir -p build
	.venv-torchvision/bin/python benchmarks/conformance.py build/models-torchvision.md
