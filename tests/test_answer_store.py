"""The answer store: what is kept survives, is checked, can be shared and dropped, and every fault is a word."""

import multiprocessing
import sqlite3

import pytest

from parityalign.core import Decoding, Said, UserError, WorkFailed
from parityalign.engines import AnswerStore, Asked, CachedModel, Spent
from parityalign.engines.store import KnownModel


def filled(path, run="r", stage="annotate", **answers):
    store = AnswerStore(path, run=run)
    store.begin_stage(stage)
    store.keep("m", {key: Said(text) for key, text in answers.items()}, Spent(answers=len(answers), requests=3))
    return store


def test_answers_come_back_as_they_were_kept(tmp_path):
    said = Said("tea\n\u2028", "length", logprob=-0.5, refused="")
    store = filled(tmp_path / "a.sqlite")
    store.keep("m", {"k": said}, Spent())
    assert dict(AnswerStore(tmp_path / "a.sqlite").answers(["k", "other"])) == {"k": said}
    assert store.missing(["other", "k", "other"]) == ["other"]


def test_what_a_run_spent_is_counted_by_stage_and_model_and_not_with_that_of_other_runs(tmp_path):
    store = filled(tmp_path / "a.sqlite", a="x")
    store.remember_model("m", KnownModel("the teacher", frozenset({"<image>"})))
    filled(tmp_path / "a.sqlite", run="other", b="y", c="z")
    filled(tmp_path / "a.sqlite", d="w")
    filled(tmp_path / "a.sqlite", stage="identify", e="v")
    spent = AnswerStore(tmp_path / "a.sqlite", run="r").spent()
    assert {key: (each.answers, each.requests) for key, each in spent.items()} == {
        ("annotate", "the teacher"): (2, 6),
        ("identify", "the teacher"): (1, 3),
    }
    assert store.model("m") == KnownModel("the teacher", frozenset({"<image>"}))


def test_only_what_no_run_uses_is_dropped(tmp_path):
    first, other = filled(tmp_path / "a.sqlite", a="1", b="2", c="3"), filled(tmp_path / "a.sqlite", run="other")
    first.keep_signals("m", {"s": b"signal", "t": None})
    first.use(["a", "t"])
    other.use(["b"])
    (held,) = first.holdings()
    assert (held.answers, held.signals, held.unused) == (3, 2, 2)
    assert first.drop_unused() == 2
    assert dict(first.answers("abc")) == {"a": Said("1"), "b": Said("2")} and dict(first.signals("st")) == {"t": None}


def test_what_is_about_to_be_asked_is_in_use(tmp_path):
    """So nobody who tidies up meanwhile drops it, and nothing is missing in the end."""
    store = AnswerStore(tmp_path / "a.sqlite", run="r")
    store.begin_stage("annotate")

    class Teacher:
        name, special_tokens = "teacher", frozenset()

        def generate(self, requests, _decoding):
            dropped.append(AnswerStore(tmp_path / "a.sqlite").drop_unused())
            return [request.prompt for request in requests]

    dropped, model = [], CachedModel("m", Teacher, store)
    asked = [Asked(str(number), "", f"question {number}", "") for number in range(6)]
    said = model.answer(asked, decoding=Decoding(8), batch_size=2, on_progress=lambda done, total: None)
    assert [answer.text for answer in said.values()] == [each.prompt for each in asked] and dropped == [0, 0, 0]


def test_a_store_that_is_only_looked_at_may_be_written_meanwhile(tmp_path):
    text = "x" * 2000
    filled(tmp_path / "a.sqlite", **{f"k{number}": text for number in range(500)}).close()
    looked_at = AnswerStore(tmp_path / "a.sqlite", read_only=True)
    assert len(dict(looked_at.answers(["k7"]))) == 1
    written = {f"l{number}": text for number in range(2000)}
    filled(tmp_path / "a.sqlite", **written).close()
    assert len(dict(looked_at.answers(written))) == 2000


def test_a_stage_that_begins_again_uses_only_what_it_takes_now(tmp_path):
    store = filled(tmp_path / "a.sqlite", a="1", b="2")
    store.use("ab")
    store.begin_stage("annotate")
    store.use("b")
    assert store.drop_unused() == 1 and store.missing("ab") == ["a"]


def test_a_damaged_row_is_as_if_it_were_not_there(tmp_path):
    store = filled(tmp_path / "a.sqlite", a="tea", b="milk")
    store.keep_signals("m", {"s": b"signal"})
    store.close()
    with sqlite3.connect(tmp_path / "a.sqlite") as file:
        file.execute("UPDATE answers SET text = 'tex' WHERE key = 'a'")
        file.execute("UPDATE signals SET content = x'00'")
    again = AnswerStore(tmp_path / "a.sqlite")
    assert again.missing("ab") == ["a"] and not dict(again.signals("s"))
    again.keep("m", {"a": Said("tea")}, Spent())
    assert again.missing("ab") == []


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"x" * 4000])
def test_a_file_that_is_no_store_is_named(tmp_path, content):
    (tmp_path / "a.sqlite").write_bytes(content)
    with pytest.raises(UserError, match=r"the answer store .*a\.sqlite cannot be read"):
        AnswerStore(tmp_path / "a.sqlite")
    assert (tmp_path / "a.sqlite").read_bytes() == content


def test_a_store_of_a_newer_version_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "a.sqlite") as file:
        file.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match="of a newer parityalign"):
        AnswerStore(tmp_path / "a.sqlite")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkFailed, match="cannot make the folder of the answer store"):
        AnswerStore(tmp_path / "file" / "a.sqlite")


def _write(path, name):
    store = AnswerStore(path, run=name)
    for number in range(20):
        store.keep("m", {f"{name} {number}": Said("x"), f"both {number}": Said("y")}, Spent(answers=2))


def test_several_processes_share_a_store(tmp_path):
    spawn = multiprocessing.get_context("fork")
    writers = [spawn.Process(target=_write, args=(tmp_path / "a.sqlite", name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    store = AnswerStore(tmp_path / "a.sqlite", run="a")
    assert [writer.exitcode for writer in writers] == [0, 0]
    (held,) = store.holdings()
    assert held.answers == 60 and sum(each.answers for each in store.spent().values()) == 40
