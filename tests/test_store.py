"""A run folder survives a kill at any moment, keeps what still holds and says why it throws the rest away."""

import hashlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makers import content
from parityalign import __version__
from parityalign.core import manifests
from parityalign.core.artifacts import Artifact, put_in_place
from parityalign.core.errors import UserError, WorkFailed
from parityalign.core.files import file_digest, folder_digest, write_whole
from parityalign.core.jsonl import Stream
from parityalign.core.manifests import refuse_changed, stale_inputs
from parityalign.core.records import Answer, content_id
from parityalign.core.run_folder import LOCK, MARKER, OWNER, RunFolder
from parityalign.core.seals import sealed


def pairs_artifact(run: RunFolder, **changes) -> Artifact:
    plan = {"inputs": {"images": "abc"}, "settings": {"annotate.temperature": 1.0}, **changes}
    return run.artifact("pairs", **plan)


def answers(count: int) -> list[Answer]:
    return [Answer(item_id=f"id{number}", text=f"text {number} é") for number in range(count)]


def finished(run: RunFolder, records: Sequence[Answer], **changes) -> Artifact:
    artifact = pairs_artifact(run, **changes)
    artifact.stream("a.jsonl", Answer).append(records)
    artifact.finish({"answers": len(records)})
    return artifact


@pytest.fixture
def run(tmp_path):
    with RunFolder(tmp_path / "runs" / "r") as folder:
        yield folder


# Streams


def test_a_stream_gives_back_what_was_appended(run):
    stream = pairs_artifact(run).stream("a.jsonl", Answer)
    records = [*answers(3), Answer(item_id="x", text="two\nlines \u2028 and a \udc80 lone half")]
    stream.append(records[:2])
    stream.append([])
    stream.append(records[2:])
    assert list(stream) == records


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(1, 400), count=st.integers(1, 5))
def test_a_torn_last_line_is_passed_over_and_cut_off_before_the_next_append(tmp_path_factory, cut, count):
    path = tmp_path_factory.mktemp("torn") / "a.jsonl"
    Stream(path, Answer, read_only=False).append(answers(count))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut] if cut < len(whole) else b"")
    lines_left = path.read_bytes().count(b"\n")

    assert list(Stream(path, Answer, read_only=True)) == answers(count)[:lines_left]
    stream = Stream(path, Answer, read_only=False)
    stream.append(answers(count)[lines_left:])
    assert path.read_bytes() == whole


def test_a_torn_line_longer_than_a_block_is_cut_off_whole(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"item_id":"a","text":"b"}\n' + b"x" * 200_000)
    assert [r.item_id for r in Stream(path, Answer, read_only=False)] == ["a"]
    assert path.read_bytes() == b'{"item_id":"a","text":"b"}\n'


def test_a_line_that_is_no_record_is_named_with_its_number(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"item_id":"a","text":"b"}\nrubbish\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: not a valid Answer: b'rubbish"):
        list(Stream(path, Answer, read_only=True))


def test_a_stream_of_a_finished_artifact_cannot_grow(run):
    stream = finished(run, answers(1)).stream("a.jsonl", Answer)
    for change in (stream.append, stream.write):
        with pytest.raises(ValueError, match="finished"):
            change(answers(2))
    assert list(stream) == answers(1)


def test_a_stream_that_is_written_whole_holds_that_and_leaves_nothing_beside_it(tmp_path):
    stream = Stream(tmp_path / "a.jsonl", Answer, read_only=False)
    for records in (answers(5), [], answers(2)):
        stream.write(iter(records))
        assert list(stream) == records
    stream.append([Answer(item_id="x", text="")])
    assert [each.item_id for each in stream] == ["id0", "id1", "x"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


class Killed(BaseException):
    """Stands for the end of the process at this point."""


@settings(max_examples=30, deadline=None)
@given(before=st.integers(0, 4), after=st.integers(1, 4), kill=st.integers(0, 4))
def test_a_stream_whose_writing_is_cut_off_holds_what_it_held(tmp_path_factory, before, after, kill):
    def dying() -> Iterator[Answer]:
        yield from answers(after)[:kill]
        raise Killed

    stream = Stream(tmp_path_factory.mktemp("kill") / "a.jsonl", Answer, read_only=False)
    stream.append(answers(before))
    with pytest.raises(Killed):
        stream.write(dying())
    assert list(stream) == answers(before)
    stream.write(answers(after))
    assert list(stream) == answers(after)


def test_what_a_kill_left_of_a_file_written_whole_is_no_content(run):
    artifact = pairs_artifact(run)
    (artifact.path / "a.jsonl.part").write_text("half")
    artifact.stream("b.jsonl", Answer).write(answers(1))
    artifact.finish({})
    assert list(artifact.manifest["files"]) == ["b.jsonl"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_without_a_traceback(tmp_path):
    (tmp_path / "a.jsonl").symlink_to("/dev/full")
    stream = Stream(tmp_path / "a.jsonl", Answer, read_only=True)
    stream._read_only = False  # a device has no torn line to cut
    with pytest.raises(WorkFailed, match="No space left") as refusal:
        stream.append(answers(1))
    assert refusal.value.exit_status == 1
    (tmp_path / "b.jsonl.part").symlink_to("/dev/full")
    with pytest.raises(WorkFailed, match=r"cannot write .*b\.jsonl: No space left"):
        Stream(tmp_path / "b.jsonl", Answer, read_only=False).write(answers(1))
    assert not (tmp_path / "b.jsonl").exists()


def test_a_file_written_whole_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path):
    write_whole(tmp_path / "f", "old")
    write_whole(tmp_path / "f", "new")
    assert (tmp_path / "f").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


# Artifacts


def test_a_finished_artifact_is_kept_with_its_counts_and_the_hash_of_each_file(run):
    finished(run, answers(2))
    again = pairs_artifact(run)
    assert again.finished
    assert again.redone_because is None
    assert list(again.stream("a.jsonl", Answer)) == answers(2)
    assert again.manifest["counts"] == {"answers": 2}
    assert again.manifest["files"]["a.jsonl"]["sha256"] == file_digest(again.path / "a.jsonl")


def test_an_unfinished_artifact_of_the_same_settings_is_continued(run):
    pairs_artifact(run).stream("a.jsonl", Answer).append(answers(2))
    again = pairs_artifact(run)
    assert not again.finished
    assert again.redone_because is None
    assert list(again.stream("a.jsonl", Answer)) == answers(2)


def test_what_was_remembered_of_unfinished_work_stands_in_the_manifest_of_whoever_finishes_it(run):
    pairs_artifact(run).remember(models={"teacher": "a"}, place="here")
    pairs_artifact(run).remember(place="there")
    manifest = finished(run, answers(1)).manifest
    assert (manifest["models"], manifest["place"]) == ({"teacher": "a"}, "there")
    with pytest.raises(ValueError, match="is finished"):
        pairs_artifact(run).remember(place="too late")
    assert pairs_artifact(run, inputs={"images": "others"}).remembered == {}


@pytest.mark.parametrize("was_finished", [True, False])
@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"settings": {"annotate.temperature": 0.7}}, "annotate.temperature was 1.0, is 0.7"),
        ({"inputs": {"images": "def"}}, "its input images changed"),
        ({"inputs": {"images": "abc", "teacher": "t"}}, "its input teacher was added or removed"),
        ({"version": 2}, "parityalign now makes version 2 of it, this was version 1"),
    ],
)
def test_what_changed_is_named_and_the_artifact_is_made_anew(run, changes, because, was_finished):
    if was_finished:
        finished(run, answers(2))
    else:
        pairs_artifact(run).stream("a.jsonl", Answer).append(answers(2))
    again = pairs_artifact(run, **changes)
    assert again.redone_because == because
    assert not again.finished
    assert list(again.stream("a.jsonl", Answer)) == []
    assert json.loads((run.path / "events.jsonl").read_text())["because"] == because


def test_peeking_tells_what_changed_and_leaves_the_artifact_alone(run):
    artifact = finished(run, answers(2))
    before = folder_digest(artifact.path)
    peeked = run.peek("pairs", inputs={"images": "other"}, settings={"annotate.temperature": 1.0})
    assert peeked.redone_because == "its input images changed"
    assert not peeked.finished
    assert folder_digest(artifact.path) == before
    assert pairs_artifact(run).finished


def test_the_digest_tells_of_content_only(run, tmp_path):
    first = finished(run, answers(2)).digest
    second = finished(run, answers(2), settings={"annotate.temperature": 0.5}).digest
    third = finished(run, answers(3)).digest
    assert first == second != third


def test_a_finished_artifact_that_lost_a_file_is_made_anew(run):
    (finished(run, answers(2)).path / "a.jsonl").unlink()
    assert pairs_artifact(run).redone_because == "its file a.jsonl is missing"


def test_a_file_that_was_edited_is_left_alone_and_told_apart_from_a_damaged_one(run):
    path = finished(run, answers(2)).path / "a.jsonl"
    whole, times = path.read_bytes(), path.stat()
    path.write_bytes(whole + b"more\n")
    os.utime(path, ns=(times.st_atime_ns, (path.parent / "manifest.json").stat().st_mtime_ns + 1))
    told = "(?s)was changed after the run wrote it, by hand .*`review`.*answers are not asked twice"
    for look in (lambda: pairs_artifact(run).stream("a.jsonl", Answer), lambda: refuse_changed(path)):
        with pytest.raises(UserError, match=told):
            look()
    assert path.read_bytes() == whole + b"more\n"

    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])  # a bit that fell over on the disk, at no time that is known
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    for look in (lambda: pairs_artifact(run).check(), lambda: refuse_changed(path)):
        with pytest.raises(UserError, match=r"(?s)a\.jsonl is damaged: .*delete the folder .*pairs and run"):
            look()
    path.write_bytes(whole)
    pairs_artifact(run).check()
    refuse_changed(path)


def test_a_file_of_unfinished_work_or_one_that_no_manifest_lists_may_be_anything(run):
    artifact = pairs_artifact(run)
    artifact.stream("a.jsonl", Answer).append(answers(1))
    refuse_changed(artifact.path / "a.jsonl")
    refuse_changed(artifact.path / "none.jsonl")
    artifact.finish({})
    (artifact.path / "notes.txt").write_text("mine")
    refuse_changed(artifact.path / "notes.txt")
    pairs_artifact(run).check()
    pairs_artifact(run).check("notes.txt")


def test_each_file_is_compared_once_in_a_process(run, monkeypatch):
    finished(run, answers(1))
    again, read = pairs_artifact(run), []
    monkeypatch.setattr(manifests, "file_digest", lambda path: read.append(path.name) or file_digest(path))
    for _ in range(3):
        again.check()
        again.stream("a.jsonl", Answer)
    assert read == ["a.jsonl"]


def test_files_named_by_their_content_are_compared_with_their_names(run):
    artifact = pairs_artifact(run)
    for text in ("one", "two"):
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        (artifact.path / "files").mkdir(exist_ok=True)
        (artifact.path / "files" / f"{name}.png").write_text(text)
    (artifact.path / "files" / "x.png.part").write_text("half")
    artifact.finish({})
    assert artifact.manifest["files"] == {}  # there may be as many as images
    pairs_artifact(run).check_content()
    (artifact.path / "files" / f"{name}.png").write_text("twp")
    with pytest.raises(UserError, match=rf"{name}\.png is damaged: its content is not what it is named by"):
        pairs_artifact(run).check_content()


def test_settings_are_compared_as_json_keeps_them(run):
    finished(run, answers(1), settings={"x": (1, 2)})
    assert pairs_artifact(run, settings={"x": (1, 2)}).finished


def test_what_a_kill_left_beside_a_manifest_is_cleared_away(run):
    begun = pairs_artifact(run).path / "begun.json"
    said = begun.read_bytes()
    finished(run, answers(1))
    begun.write_bytes(said)
    assert pairs_artifact(run).finished and not begun.exists()


def test_files_below_folders_count_as_content(run):
    artifact = pairs_artifact(run)
    (artifact.path / "deep").mkdir()
    (artifact.path / "deep" / "weights").write_bytes(b"w")
    artifact.finish({"files": 1})
    assert list(artifact.manifest["files"]) == ["deep/weights"]


def test_a_kill_while_unfinished_work_is_thrown_away_leaves_a_usable_folder(run):
    artifact = pairs_artifact(run)
    artifact.stream("a.jsonl", Answer).append(answers(2))
    artifact.path.rename(run.path / ".pairs.discarded")  # moved away, not yet deleted
    again = pairs_artifact(run)
    assert not again.finished and list(again.stream("a.jsonl", Answer)) == []
    pairs_artifact(run, version=2)
    assert not (run.path / ".pairs.discarded").exists()


@pytest.mark.parametrize("name", ["pairs/photo.png", "pairs/2024/photo.png", "pairs"])
def test_what_no_run_has_made_is_refused_and_stays(run, name):
    mine = run.path / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_bytes(b"mine")
    with pytest.raises(UserError, match="is in the way, and no run wrote it"):
        pairs_artifact(run)
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize("left", [[], ["begun.json.part"]])
def test_a_kill_before_the_first_mark_is_whole_leaves_a_usable_folder(run, left):
    (run.path / "pairs").mkdir()
    for name in left:
        (run.path / "pairs" / name).write_text("{")
    assert not pairs_artifact(run).finished


# A finished artifact that is made again


OTHER = {"settings": {"annotate.temperature": 0.7}}


def test_a_finished_artifact_stays_until_the_one_in_its_place_is_whole(run):
    old = finished(run, answers(2)).path
    before = content(old)
    again = pairs_artifact(run, **OTHER)
    again.remember(place="here")
    again.stream("a.jsonl", Answer).append(answers(1))
    assert again.path == run.path / ".pairs.new" and content(old) == before
    resumed = pairs_artifact(run, **OTHER)  # after a kill
    assert resumed.redone_because == "annotate.temperature was 1.0, is 0.7" and content(old) == before
    assert list(resumed.stream("a.jsonl", Answer)) == answers(1)
    resumed.stream("a.jsonl", Answer).append([Answer(item_id="x", text="")])
    resumed.finish({"answers": 2})
    assert resumed.path == old and resumed.finished and resumed.manifest["place"] == "here"
    assert [each.item_id for each in pairs_artifact(run, **OTHER).stream("a.jsonl", Answer)] == ["id0", "x"]
    assert {path.name for path in run.path.iterdir() if path.is_dir()} == {"pairs"}
    assert {path.name for path in old.iterdir()} == {"a.jsonl", "manifest.json"}


def test_a_setting_that_is_taken_back_finds_the_old_artifact_up_to_date(run):
    finished(run, answers(2))
    pairs_artifact(run, **OTHER).stream("a.jsonl", Answer).append(answers(1))
    back = pairs_artifact(run)
    assert back.finished and list(back.stream("a.jsonl", Answer)) == answers(2)


def test_work_on_a_successor_is_not_continued_under_yet_other_settings(run):
    finished(run, answers(2))
    pairs_artifact(run, **OTHER).stream("a.jsonl", Answer).append(answers(1))
    third = pairs_artifact(run, version=2)
    assert third.redone_because.startswith("parityalign now makes version 2") and third.remembered == {}
    assert list(third.stream("a.jsonl", Answer)) == []


def test_what_others_put_into_a_replaced_folder_stays_there(run):
    old = pairs_artifact(run)
    (old.path / "files").mkdir()
    (old.path / "files" / "a.png").write_text("by content")
    old.stream("a.jsonl", Answer).append(answers(2))
    old.stream("b.jsonl", Answer).append(answers(2))
    old.finish({})
    (old.path / "mine" / "deep").mkdir(parents=True)
    for name in ("notes.txt", "mine/deep/photo.png", "new.txt"):
        (old.path / name).write_text("mine")
    new = pairs_artifact(run, **OTHER)
    new.stream("a.jsonl", Answer).append(answers(1))
    (new.path / "new.txt").write_text("of the run")
    new.finish({})
    found = content(run.path / "pairs")
    assert found.keys() == {"a.jsonl", "manifest.json", "new.txt", "notes.txt", "mine/deep/photo.png"}
    assert found["mine/deep/photo.png"] == b"mine" and found["new.txt"] == b"of the run"
    assert sorted(new.manifest["files"]) == ["a.jsonl", "new.txt"]
    pairs_artifact(run, **OTHER).check()


MOVES = ("unlink", "replace", "rmdir", "mkdir")


def dying(monkeypatch, after: int) -> list[str]:
    """Ends the process, as it were, at the disk's change number `after`; the list grows by each change."""
    done: list[str] = []

    def watched(change):
        def call(*arguments, **options):
            if len(done) >= after:
                raise Killed
            done.append(change.__name__)
            return change(*arguments, **options)

        return call

    for name in MOVES:
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    return done


@pytest.mark.parametrize("kill", range(13))
def test_a_kill_at_each_step_of_the_replacement_is_mended_by_the_next_process(tmp_path, kill):
    with RunFolder(tmp_path / "r") as run:
        old = finished(run, answers(3))
        (old.path / "notes.txt").write_text("mine")
        new = pairs_artifact(run, **OTHER)
        new.stream("a.jsonl", Answer).append(answers(1))
        with pytest.MonkeyPatch.context() as patch:
            done = dying(patch, kill)
            try:
                new.finish({"answers": 1})
            except Killed:
                pass
            else:
                assert len(done) == 11  # the last kills come when all is done
        made = pairs_artifact(run, **OTHER)
        if not made.finished:
            assert list(made.stream("a.jsonl", Answer)) == answers(1)
            made.finish({"answers": 1})
        assert {path.name for path in run.path.iterdir() if path.is_dir()} == {"pairs"}
        assert content(run.path / "pairs").keys() == {"a.jsonl", "manifest.json", "notes.txt"}
        again = pairs_artifact(run, **OTHER)
        again.check()
        assert again.finished and list(again.stream("a.jsonl", Answer)) == answers(1)


def test_a_replacement_without_a_successor_gives_the_old_artifact_back(run):
    old = finished(run, answers(2)).path
    before = content(old)
    old.rename(run.path / ".pairs.old")
    put_in_place(old)
    assert content(old) == before and not (run.path / ".pairs.old").exists()
    put_in_place(run.path / "nothing")


def test_what_a_newer_version_made_is_not_made_again(run):
    path = finished(run, answers(2)).path
    manifest = json.loads((path / "manifest.json").read_text())
    for made, newer in ((f"{__version__}.1", True), ("99.0", True), (__version__, False), ("0.0.1", False)):
        (path / "manifest.json").write_text(json.dumps(sealed({**manifest, "parityalign": made})))
        assert pairs_artifact(run).finished  # what is up to date is read, whoever made it
        before = content(run.path / "pairs")
        if newer:
            with pytest.raises(UserError, match=f"was made by parityalign {made}, and this is {__version__}"):
                pairs_artifact(run, **OTHER)
        else:
            pairs_artifact(run, **OTHER)
        assert content(run.path / "pairs") == before


# What an artifact was made from


def made_of(run: RunFolder, inputs, parts=None) -> Artifact:
    return run.artifact("verdicts", inputs=inputs, settings={}, parts=parts or {})


def test_where_a_part_of_an_input_matters_only_a_change_of_that_part_counts(run):
    made_of(run, {"pairs": "a", "teacher": "t"}, {"pairs": "part"}).finish({})
    again = made_of(run, {"pairs": "b", "teacher": "t"}, {"pairs": "part"})
    assert again.finished
    assert made_of(run, {"pairs": "b", "teacher": "t"}, {"pairs": "other"}).redone_because == "its input pairs changed"


def test_an_artifact_that_still_holds_notes_the_present_digests_of_its_inputs(run):
    source = finished(run, answers(1))
    inputs = {"pairs": content_id("of before")}
    made_of(run, inputs, {"pairs": "part"}).finish({"verdicts": 1})
    assert stale_inputs(run.path, "verdicts") == ["pairs"]
    made = made_of(run, {"pairs": source.digest}, {"pairs": "part"})
    assert made.finished and stale_inputs(run.path, "verdicts") == []
    assert made.manifest["of"] == {"pairs": source.digest} and made.manifest["counts"] == {"verdicts": 1}
    before = (made.path / "manifest.json").stat().st_mtime_ns
    made_of(run, {"pairs": source.digest}, {"pairs": "part"})
    assert (made.path / "manifest.json").stat().st_mtime_ns == before  # nothing to note


def test_peeking_notes_nothing(run):
    made_of(run, {"pairs": "a"}, {"pairs": "part"}).finish({})
    before = content(run.path)
    assert run.peek("verdicts", inputs={"pairs": "b"}, settings={}, parts={"pairs": "part"}).finished
    assert content(run.path) == before


def test_an_artifact_with_an_identity_is_that_to_those_made_from_it_whatever_its_files(run):
    digests = []
    for number, (count, identity) in enumerate([(1, "a"), (2, "a"), (2, "b")]):
        artifact = pairs_artifact(run, version=number)
        artifact.stream("a.jsonl", Answer).append(answers(count))
        artifact.finish({}, identity=identity)
        digests.append(artifact.digest)
    assert digests == ["a", "a", "b"]


# Paths in records


@pytest.mark.parametrize("replaced", [False, True])
def test_paths_in_records_are_relative_to_the_run_and_hold_when_the_artifact_is_in_place(run, tmp_path, replaced):
    if replaced:
        finished(run, answers(1))
    artifact = pairs_artifact(run, **OTHER)
    inside, outside = artifact.path / "files" / "a.png", tmp_path / "pool" / "b.png"
    kept = [artifact.kept_path(str(path)) for path in (inside, outside)]
    assert kept == [os.path.join("pairs", "files", "a.png"), os.path.join("..", "..", "pool", "b.png")]
    assert [artifact.found_path(path) for path in kept] == [str(inside), str(outside)]
    artifact.finish({})
    assert artifact.found_path(kept[0]) == str(run.path / "pairs" / "files" / "a.png")
    assert artifact.found_path(str(outside)) == str(outside)  # as in runs of earlier versions


def test_a_run_and_its_pictures_can_be_moved_together(tmp_path):
    with RunFolder(tmp_path / "here" / "runs" / "r") as run:
        artifact = pairs_artifact(run)
        kept = artifact.kept_path(str(tmp_path / "here" / "pool" / "b.png"))
        artifact.finish({})
    (tmp_path / "here").rename(tmp_path / "there")
    with RunFolder(tmp_path / "there" / "runs" / "r") as run:
        assert pairs_artifact(run).found_path(kept) == str(tmp_path / "there" / "pool" / "b.png")


# A kill while it works


KILLED_WRITER = """
import sys
from pathlib import Path
from parityalign.core import Answer, Decoding, RunFolder
from parityalign.engines import Asked
from makers import kept

class Model:
    name, special_tokens = "m", frozenset()
    def generate(self, requests, decoding):
        print("x" * 4000, flush=True)  # the pipe is full before the work is done
        return [f"{request.prompt} of {len(requests)}" + "x" * 300 for request in requests]

folder = Path(sys.argv[1])
with RunFolder(folder) as run:
    artifact = run.artifact("answers", inputs={}, settings={})
    questions = [Asked(str(number), "", f"question {number}", "") for number in range(2000)]
    answers = kept(folder, Model()).answer(
        questions, decoding=Decoding(8), batch_size=16, on_progress=lambda done, total: None
    )
    artifact.stream("a.jsonl", Answer).write(answers.values())
    artifact.finish({"answers": 2000})
"""


def test_notes_are_told_once_and_in_order_whichever_process_told_them(run):
    pairs_artifact(run).note("One thing.")
    resumed = pairs_artifact(run)
    resumed.also = lambda: {"note": "Three servers.", "servers": 3}
    for text in ("Another.", "One thing."):
        resumed.note(text)
    resumed.finish({}, outcome="fine")
    manifest = pairs_artifact(run).manifest
    assert manifest["note"] == "Three servers. One thing. Another."
    assert (manifest["servers"], manifest["outcome"], "notes" in manifest) == (3, "fine", False)


@pytest.mark.long
def test_a_process_killed_while_it_writes_is_continued_to_the_same_bytes(tmp_path):
    def start(run: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", KILLED_WRITER, str(run)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)

    whole = start(tmp_path / "whole")
    batches = whole.communicate()[0].count("\n")
    assert (whole.returncode, batches) == (0, 125)
    seen = 0
    for kill_after in (1, 20, 55):
        killed = start(tmp_path / "killed")
        for _ in range(kill_after):
            killed.stdout.readline()
        killed.send_signal(signal.SIGKILL)
        seen += kill_after + killed.communicate()[0].count("\n")
        assert not (tmp_path / "killed" / "answers" / "a.jsonl").exists()
        assert not (tmp_path / "killed" / "answers" / "manifest.json").exists()
    last = start(tmp_path / "killed")
    seen += last.communicate()[0].count("\n")
    assert batches <= seen <= batches + 3  # only the batch in which the kill came is asked again
    assert folder_digest(tmp_path / "killed" / "answers") == folder_digest(tmp_path / "whole" / "answers")


# The lock


def _enter(path: Path, said: "multiprocessing.Queue[str]") -> None:
    try:
        with RunFolder(path):
            said.put("entered")
    except UserError as problem:
        said.put(str(problem))


def _from_another_process(path: Path) -> str:
    context = multiprocessing.get_context("spawn")
    said: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=_enter, args=(path, said))
    process.start()
    answer = said.get(timeout=60)
    process.join()
    return answer


@pytest.mark.slow
def test_a_second_process_is_refused_with_the_folder_and_the_pid_of_the_first(tmp_path):
    with RunFolder(tmp_path / "r"):
        refusal = _from_another_process(tmp_path / "r")
    assert str(tmp_path / "r") in refusal
    assert str(os.getpid()) in refusal
    assert _from_another_process(tmp_path / "r") == "entered"


def test_a_second_run_of_the_same_folder_in_one_process_is_refused_too(tmp_path):
    with RunFolder(tmp_path / "r"), pytest.raises(UserError, match=f"pid {os.getpid()}"), RunFolder(tmp_path / "r"):
        pass
    with RunFolder(tmp_path / "r"):
        pass


HOLDER = """
import sys, time
from pathlib import Path
from parityalign.core import RunFolder

with RunFolder(Path(sys.argv[1])):
    print("holds", flush=True)
    time.sleep(600)
"""


def test_the_lock_of_a_killed_process_is_gone_with_it(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "r")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "holds\n"
        with pytest.raises(UserError, match=f"pid {holder.pid}"), RunFolder(tmp_path / "r"):
            pass
        holder.kill()
    with RunFolder(tmp_path / "r"):
        pass


@pytest.mark.parametrize("name", [LOCK, OWNER])
def test_nothing_is_written_through_a_link_in_the_place_of_the_lock(tmp_path, name):
    (tmp_path / "r").mkdir()
    (tmp_path / "precious").write_text("of another")
    (tmp_path / "r" / name).symlink_to(tmp_path / "precious")
    if name == LOCK:
        with pytest.raises(UserError, match="is a symbolic link"), RunFolder(tmp_path / "r"):
            pass
    else:
        with RunFolder(tmp_path / "r"):
            pass
    assert (tmp_path / "precious").read_text() == "of another"


def test_a_file_in_the_place_of_the_run_folder_is_refused(tmp_path):
    (tmp_path / "r").write_text("not a folder")
    with pytest.raises(UserError, match="cannot use .* as a run folder"), RunFolder(tmp_path / "r"):
        pass


def test_events_are_whole_lines_with_a_time_even_after_a_torn_one(run):
    run.event("started", command="run")
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"torn": ')
    run.event("done", seconds=1.5)
    rows = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    assert [row["event"] for row in rows] == ["started", "done"]
    assert rows[0]["command"] == "run"
    assert rows[0]["time"].endswith("+00:00")


# The marker


def test_a_run_folder_keeps_its_id_wherever_it_lies_and_no_two_have_the_same(tmp_path):
    with RunFolder(tmp_path / "a") as first, RunFolder(tmp_path / "b") as second:
        assert len(first.id) == 32 and first.id != second.id
    (tmp_path / "a").rename(tmp_path / "moved")
    with RunFolder(tmp_path / "moved") as moved:
        assert moved.id == first.id


@pytest.mark.parametrize("said", ["{", "[]", "{}", '{"run": 3}', "\0"])
def test_a_damaged_marker_is_named_and_left_alone(tmp_path, said):
    (tmp_path / MARKER).write_text(said)
    with pytest.raises(UserError, match=r"\.parityalign\.json is damaged"), RunFolder(tmp_path):
        pass
    assert (tmp_path / MARKER).read_text() == said
    (tmp_path / MARKER).unlink()
    with RunFolder(tmp_path) as mended:  # it is not in use
        assert mended.id


# Damaged manifests


@pytest.fixture
def manifest(run):
    """The manifest of a finished artifact, to be damaged: (its file, its content)."""
    path = finished(run, answers(1)).path / "manifest.json"
    return path, json.loads(path.read_text())


REQUIRED = ("counts", "inputs", "settings", "version", "fingerprint", "parityalign", "files")


def without(key):
    return lambda said: said.pop(key)


def with_(key, value):
    return lambda said: said.update({key: value})


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        *((without(key), key) for key in REQUIRED),
        *((with_(key, None), key) for key in REQUIRED),
        (with_("counts", {"answers": "many"}), "counts.answers"),
        (with_("inputs", {"images": 3}), "inputs.images"),
        (with_("settings", []), "settings"),
        (with_("version", "1"), "version"),
        (with_("parityalign", 0.1), "parityalign"),
        (with_("files", {"a.jsonl": "abc"}), "files.a.jsonl"),
        (with_("files", {"a.jsonl": {"bytes": 3}}), "files.a.jsonl.sha256"),
    ],
)
def test_a_manifest_that_lacks_something_or_holds_something_else_is_named_with_the_place(run, manifest, damage, place):
    path, said = manifest
    damaged = deepcopy(said)
    damage(damaged)
    path.write_text(json.dumps(damaged))
    told = (
        rf"manifest\.json is damaged: {re.escape(place)}: .*\nDelete the folder {re.escape(str(path.parent))} and run"
    )
    before = content(run.path)
    for look in (lambda: pairs_artifact(run), lambda: pairs_artifact(run, **OTHER), lambda: refuse_changed(path)):
        with pytest.raises(UserError, match=told):
            look()
    assert content(run.path) == before


@pytest.mark.parametrize(
    "said", [b"", b"{", b"[]", b"3", b'"text"', b"null", b"\xff\xfe", b"[" * 100_000, b'{"files": ' * 5000]
)
@pytest.mark.parametrize("file", ["manifest.json", "begun.json"])
def test_what_is_no_such_object_is_named_with_what_to_do(run, file, said):
    pairs_artifact(run)
    path = run.path / "pairs" / file
    path.write_bytes(said)
    with pytest.raises(UserError, match=rf"{re.escape(file)} is damaged.*\n.*Delete the folder"):
        pairs_artifact(run)
    assert path.read_bytes() == said


@settings(max_examples=150)
@given(data=st.data())
def test_a_manifest_damaged_anyhow_is_read_or_refused_in_words(tmp_path_factory, data):
    with RunFolder(tmp_path_factory.mktemp("run")) as run:
        path = finished(run, answers(1)).path / "manifest.json"
        damaged = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(bytes(damaged))
        for look in (lambda: pairs_artifact(run, **OTHER), lambda: stale_inputs(run.path, "pairs")):
            try:
                look()
            except UserError as problem:
                assert str(problem)
