"""Fixtures that several tests share, and where the tests compute: on the CPU, unless a GPU is asked for."""

import gc
import os

import pytest
from hypothesis import settings

from parityalign.config import LoadingSettings
from parityalign.core.interfaces import LevelResult
from parityalign.pipeline import run
from parityalign.pipeline.run_models import RunModels
from projects import WORDS, make_project, table

# A busy machine breaks no deadline, and every run draws the same examples: whether a change may land must not hang on
# luck. `make search` looks for new ones.
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("search", deadline=None)
settings.load_profile("suite")

ON_GPU = os.environ.get("PARITYALIGN_TEST_GPU") == "1"
"""Whether the tests may see a GPU (`make test-gpu`)."""
if not ON_GPU:
    # Before torch looks, here and in the processes that tests start. The package asks torch for CUDA and nothing else,
    # and ROCm goes by that name too; of other accelerators it uses none.
    os.environ.update(CUDA_VISIBLE_DEVICES="", HIP_VISIBLE_DEVICES="")

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


def pytest_collection(session):
    """Says in a line that there is no GPU to test on, where one was asked for."""
    if not ON_GPU:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.exit("this machine has no GPU that torch can use, so nothing was tested on one", returncode=0)


def pytest_collection_finish(session):
    """Spares the collector torch's and pytest's many objects: stages call it, in every run of every test."""
    _spare_the_collector()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Spares it also what the tests of a file have imported."""
    if nextitem is None or nextitem.path != item.path:
        _spare_the_collector()


def _spare_the_collector():
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Waits for no disk: what a test writes need not outlast a power failure."""
    monkeypatch.setattr("os.fsync", lambda file: None)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Without the machine's own settings that a program would follow."""
    for name in (*PROXIES, "PARITYALIGN_API_KEY", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path):
    """A folder with pictures, a labelled split, a fake teacher and student, and the configuration `run.yaml`."""
    return make_project(tmp_path)


@pytest.fixture
def trainable(monkeypatch):
    """Levelling replaced: a fake student that is trained can read what it was given."""
    replace_levelling(monkeypatch)


def replace_levelling(monkeypatch):
    """Does what the fixture `trainable` is for."""

    def learn(pairs, held_out, out):
        # Held-out pairs too: which ones are held out hangs on the pictures, and no test should.
        table(out / "replies.json", WORDS[:4] + [pair.answer for pair in (*pairs, *held_out)])
        return LevelResult(1, 1, 2.0, 1.0)

    monkeypatch.setattr(run, "leveller", lambda *_, **__: learn)
    replies = lambda this, student: this._cached(  # noqa: E731
        f"fake:{student.path / 'replies.json'}", LoadingSettings(), "after", student.digest
    )
    monkeypatch.setattr(RunModels, "trained", replies)
