"""Fixtures that several tests share."""

import pytest
from hypothesis import settings

from parityalign.core.interfaces import LevelResult
from parityalign.models.backends import fake
from parityalign.pipeline import run
from projects import WORDS, make_project, table

# A busy machine breaks no deadline, and every run draws the same examples: whether a change may land must not hang on
# luck. `make search` looks for new ones.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile("suite")

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


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

    def learn(pairs, held_out, out):
        # Held-out pairs too: which ones are held out hangs on the pictures, and no test should.
        table(out / "replies.json", WORDS[:4] + [pair.answer for pair in (*pairs, *held_out)])
        return LevelResult(1, 1, 2.0, 1.0)

    monkeypatch.setattr(run, "leveller", lambda *_, **__: learn)
    replies = lambda this: fake.load(str(this.folder.path / "student" / "replies.json"))  # noqa: E731
    monkeypatch.setattr(run.Run, "load_levelled", replies)
