"""A run folder survives a kill at any moment, keeps what still holds and says why it throws the rest away."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parityalign.core.artifacts import LOCK, OWNER, Artifact, RunFolder
from parityalign.core.errors import UserError, WorkFailed
from parityalign.core.files import file_digest, folder_digest, write_whole
from parityalign.core.jsonl import Stream, resume_in_batches
from parityalign.core.records import Answer


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
    artifact = finished(run, answers(1))
    with pytest.raises(ValueError, match="finished"):
        artifact.stream("a.jsonl", Answer).append(answers(1))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_without_a_traceback(tmp_path):
    (tmp_path / "a.jsonl").symlink_to("/dev/full")
    stream = Stream(tmp_path / "a.jsonl", Answer, read_only=True)
    stream._read_only = False  # a device has no torn line to cut
    with pytest.raises(WorkFailed, match="No space left") as refusal:
        stream.append(answers(1))
    assert refusal.value.exit_status == 1


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


def test_a_finished_artifact_that_was_edited_is_made_anew(run):
    artifact = finished(run, answers(2))
    with (artifact.path / "a.jsonl").open("a") as file:
        file.write("more\n")
    assert pairs_artifact(run).redone_because == "its file a.jsonl was changed by hand"


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


def test_a_kill_while_an_old_artifact_is_thrown_away_leaves_a_usable_folder(run):
    artifact = finished(run, answers(2))
    artifact.path.rename(run.path / ".pairs.discarded")  # moved away, not yet deleted
    again = pairs_artifact(run)
    assert not again.finished
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


# Resuming


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 12), batch_size=st.integers(1, 5), cut=st.integers(0, 500))
def test_a_cut_off_stream_is_completed_to_the_bytes_of_an_uninterrupted_one(tmp_path_factory, count, batch_size, cut):
    def work(batch: Sequence[int]) -> list[Answer]:
        # As with a real model, what one item gets depends on the others of its batch.
        return [Answer(item_id=str(item), text=f"{item} of {list(batch)}") for item in batch]

    def fill(path: Path) -> bytes:
        stream = Stream(path, Answer, read_only=False)
        resume_in_batches(
            stream,
            list(range(count)),
            item_id=str,
            record_id=lambda record: record.item_id,
            batch_size=batch_size,
            work=work,
            on_progress=lambda done, total: None,
        )
        return path.read_bytes() if path.exists() else b""

    folder = tmp_path_factory.mktemp("resume")
    whole = fill(folder / "whole.jsonl")
    (folder / "cut.jsonl").write_bytes(whole[: min(cut, len(whole))])
    assert fill(folder / "cut.jsonl") == whole


def test_finished_batches_are_not_worked_on_again_and_progress_counts_all_items(tmp_path):
    stream = Stream(tmp_path / "a.jsonl", Answer, read_only=False)
    stream.append(answers(4))
    worked, told = [], []

    def work(batch: Sequence[str]) -> list[Answer]:
        worked.append(list(batch))
        return [Answer(item_id=item, text="new") for item in batch]

    resume_in_batches(
        stream,
        [f"id{number}" for number in range(5)],
        item_id=str,
        record_id=lambda record: record.item_id,
        batch_size=2,
        work=work,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert worked == [["id4"]]
    assert told == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize(("items", "made"), [(["a", "a"], ["a", "a"]), (["a", "b"], ["b", "a"]), (["a"], [])])
def test_records_that_do_not_belong_to_the_items_are_a_bug(tmp_path, items, made):
    with pytest.raises(ValueError, match="repeat|do not belong"):
        resume_in_batches(
            Stream(tmp_path / "a.jsonl", Answer, read_only=False),
            items,
            item_id=str,
            record_id=lambda record: record.item_id,
            batch_size=8,
            work=lambda batch: [Answer(item_id=item, text="") for item in made],
            on_progress=lambda done, total: None,
        )


KILLED_WRITER = """
import sys
from pathlib import Path
from parityalign.core import Answer, RunFolder, resume_in_batches

with RunFolder(Path(sys.argv[1])) as run:
    artifact = run.artifact("answers", inputs={}, settings={})
    resume_in_batches(
        artifact.stream("a.jsonl", Answer), list(range(2000)),
        item_id=str, record_id=lambda record: record.item_id, batch_size=16,
        work=lambda batch: [Answer(item_id=str(i), text=f"{i} of {batch[0]}" + "x" * 300) for i in batch],
        on_progress=lambda done, total: print(f"{done:>4000}", flush=True),  # the pipe is full before the work is done
    )
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


def test_a_process_killed_while_it_writes_is_continued_to_the_same_bytes(tmp_path):
    def start(run: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", KILLED_WRITER, str(run)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    whole = start(tmp_path / "whole")
    whole.communicate()
    assert whole.returncode == 0
    for kill_after in (1, 20, 55):
        killed = start(tmp_path / "killed")
        for _ in range(kill_after):
            killed.stdout.readline()
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert (tmp_path / "killed" / "answers" / "a.jsonl").exists()
        assert not (tmp_path / "killed" / "answers" / "manifest.json").exists()
    start(tmp_path / "killed").communicate()
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


def test_a_damaged_manifest_is_named_with_what_to_do(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is damaged.*\n.*Delete the folder"):
        RunFolder(tmp_path).peek("made", inputs={}, settings={})
