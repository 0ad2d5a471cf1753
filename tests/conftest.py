"""Fixtures that several tests share."""

import pytest

from parityalign import joinery, levelling
from parityalign.models import fake
from parityalign.seams import LevelResult
from projects import WORDS, make_project, table


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

    monkeypatch.setattr(levelling, "leveller", lambda *_, **__: learn)
    replies = lambda run: fake.load(str(run.folder.path / "student" / "replies.json"))  # noqa: E731
    monkeypatch.setattr(joinery.Run, "load_levelled", replies)
