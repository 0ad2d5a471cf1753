"""Before and during a run: what it would do, a few pairs beforehand, how far it is, what its answers take."""

import json

import pytest

import parityalign as pa
from makers import content, mute
from parityalign.core import LevelResult, RunFolder, UserError, WorkFailed
from parityalign.demo.generate import write_demo_data
from parityalign.models.backends.fake import FakeModel
from parityalign.pipeline import run as run_module
from parityalign.pipeline import run_models
from projects import configure, done, parityalign, refusal, table


def told(output: str, stage: str) -> str:
    return next(line for line in output.splitlines() if line.startswith(f"{stage} "))


def test_a_dry_run_of_a_new_run_counts_what_annotate_would_ask_and_makes_no_folder(project):
    output = done("run", project / "run.yaml", "--dry-run")
    assert "not done yet" in told(output, "annotate") and "8 to fake:" in told(output, "annotate")
    assert "at most 16" in told(output, "identify") and "not done yet" in told(output, "level")
    assert "at most 24" in told(output, "evaluate")  # of three models, eight questions each
    assert not (project / "runs").exists()


def test_a_dry_run_of_a_finished_run_has_nothing_to_do_and_one_after_a_change_says_why(project, trainable):
    done("run", project / "run.yaml")
    before = content(project / "runs")
    output = done("run", project / "run.yaml", "--dry-run")
    assert output.count("up to date") == 7
    output = done("run", configure(project, level={"epochs": 9}), "--dry-run")
    assert "level.epochs was 3, is 9" in told(output, "level") and "up to date" in told(output, "identify")
    assert content(project / "runs") == before


def test_a_run_until_a_stage_ends_there_and_says_before_it_works_what_it_does_again(project):
    output = done("run", project / "run.yaml", "--until", "identify")
    assert [line for line in output.splitlines() if ": done" in line][-1].startswith("identify")
    assert not (project / "runs" / "a" / "student").exists()
    output = done("run", configure(project, identify={"rule": "paper"}), "--until", "identify")
    assert 'identify is done again: identify.rule was "judge", is "paper"' in output
    assert "has no stage 'identfy'" in refusal("run", project / "run.yaml", "--until", "identfy")


def test_a_preview_shows_pairs_with_their_outcome_and_the_run_does_not_ask_for_them_again(project, monkeypatch):
    asked = []
    load = run_models.load_model
    monkeypatch.setattr(run_models, "load_model", lambda *given: asked.append(load(*given)) or asked[-1])
    output = done("preview", project / "run.yaml", "--pairs", 3)
    rows = [line for line in output.splitlines() if "What is written?" in line]
    assert len(rows) == 3 and any("gap (only the teacher is right)" in row for row in rows)
    page = (project / "runs" / "a" / "preview.html").read_text()
    assert page.count("data:image") == 3 and "What is written?" in page
    prompts = lambda: [(r.image, r.prompt) for model in asked for r in model.asked]  # noqa: E731
    before = prompts()
    assert sum("Write one question" in prompt for _, prompt in before) == 3
    asked.clear()
    done("run", project / "run.yaml", "--until", "identify")
    assert not {*prompts()} & {*before} and sum("Write one question" in prompt for _, prompt in prompts()) == 5


def test_a_preview_shows_replies_that_hold_no_pair(project):
    table = {"replies": [{"image": "*", "contains": "Write one question", "text": "<script>no pair</script>"}]}
    (project / "teacher.json").write_text(json.dumps(table))
    message = refusal("preview", project / "run.yaml", "--pairs", 2, status=1)
    assert "none of 2 replies" in message and "<script>no pair</script>" in message


def test_status_says_what_is_done_up_to_date_and_asked(project, trainable):
    done("run", project / "run.yaml", "--until", "identify")
    output = done("status", project / "runs" / "a")
    assert "up to date" in told(output, "identify") and "gaps 4" in told(output, "identify")
    assert told(output, "identify").split()[-3] == "12"  # eight of the student, four of the teacher
    assert "not done" in told(output, "level")
    done("run", project / "run.yaml")
    configured = (project / "runs" / "a" / "run.yaml").read_text()
    (project / "runs" / "a" / "run.yaml").write_text(configured.replace("epochs: 3", "epochs: 4"))
    output = done("status", project / "runs" / "a")
    assert "out of date: level.epochs was 3, is 4" in told(output, "level")
    assert "waits for the stages before" in told(output, "evaluate")


def test_a_run_that_has_asked_nobody_has_no_answers(project):
    done("run", project / "run.yaml", "--until", "intake")
    (project / "runs" / "a" / "answers.sqlite").unlink()
    assert "has no answers yet" in refusal("answers", project / "runs" / "a")


def test_answers_says_what_lies_there_and_drops_what_no_artifact_needs(project):
    run = project / "runs" / "a"
    done("run", project / "run.yaml", "--until", "identify")
    (project / "pool" / "stop.png").unlink()
    done("run", project / "run.yaml", "--until", "identify")
    output = done("answers", run)
    teacher = next(line for line in output.splitlines() if "teacher.json" in line).split()
    assert [int(count) for count in teacher[1:4]] == [12, 0, 1]
    with RunFolder(run):
        assert "in use by another process" in refusal("answers", run, "--drop-unused")
    assert "dropped: 2" in done("answers", run, "--drop-unused")
    assert "dropped: 0" in done("answers", run, "--drop-unused")
    before = content(run / "pairs")
    done("run", project / "run.yaml", "--until", "identify")
    assert content(run / "pairs") == before


class Watched:
    """Progress that is told sentences, and answers no."""

    def __init__(self):
        self.said, self.asked = [], []

    def __call__(self, step, done, total):
        pass

    def say(self, text):
        self.said.append(text)

    def confirm(self, question):
        self.asked.append(question)
        return False


@pytest.mark.parametrize(("limit", "asks"), [(0, True), (7, True), (8, False), (None, False)])
def test_much_that_is_paid_for_is_asked_for_first_and_a_no_keeps_everything(project, monkeypatch, limit, asks):
    remote = run_models.backend_of("fake:teacher.json")
    paid = type(remote)(connect=lambda *_: None)
    local = run_models.backend_of
    monkeypatch.setattr(run_models, "backend_of", lambda spec: paid if "teacher" in spec else local(spec))
    monkeypatch.setattr(run_models.engines, "connect", lambda spec, *_: run_models.load_model(spec))
    monkeypatch.setattr(FakeModel, "close", lambda _: None, raising=False)
    watched = Watched()
    server = {"confirm_above": limit}
    run = pa.open_run(configure(project, server=server), progress=watched)
    if not asks:
        run.upto("annotate")
        assert watched.asked == []
        return
    with pytest.raises(WorkFailed, match="stopped before 8 questions.*what was done so far is kept"):
        run.upto("annotate")
    (question,) = watched.asked
    assert question.startswith("annotate: 8 questions to fake:")
    assert (project / "runs/a/images/manifest.json").is_file()


def test_without_labels_the_held_out_images_say_what_was_gained(project, trainable):
    output = done("run", configure(project, tasks={"textvqa": {"images": "pool"}}, level={"held_out": 0.5}))
    assert "without a test split there are no scores" in output
    scores = pa.open_run(project / "runs" / "a", progress=mute).scores
    held = scores.held_out.total
    assert scores.held_out.accepted and held.pairs == held.images == 4
    assert held.after.count == 4 > held.before.count and held.gaps_closed.count == 4 - held.before.count
    assert "The student agrees with the teacher on 100.0 % of 4 pairs on 4 held-out images, before on " in output
    page = (project / "runs" / "a" / "report.html").read_text()
    assert "On held-out images, without labels" in page and "The student agrees with the teacher on 100.0 %" in page


def test_a_student_that_is_not_better_is_left_as_it_was_and_everything_says_so(project, trainable, monkeypatch):
    def forget(pairs, held_out, out):
        table(out / "replies.json", [])
        return LevelResult(1, 1, 2.0, 1.0)

    monkeypatch.setattr(run_module, "leveller", lambda *_, **__: forget)
    output = done("run", configure(project, level={"held_out": 0.5}))
    assert "Nothing was gained, so the student was left as it was: of 4 pairs" in output
    run = pa.open_run(project / "runs" / "a", progress=mute)
    assert run.student is None and not run.scores.held_out.accepted
    task = run.scores.tasks["textvqa"]
    assert task.after == task.before
    assert parityalign("run", project / "run.yaml").exit_code == 0
    assert "left as it was" in (project / "runs" / "a" / "report.html").read_text()


def test_a_student_that_was_taken_is_kept_when_it_is_replaced(project, trainable):
    done("run", project / "run.yaml")
    run = project / "runs" / "a"
    first = (run / "student" / "replies.json").read_bytes()
    output = done("run", configure(project, level={"epochs": 9}))
    assert "level is done again: level.epochs was 3, is 9; what is there will be kept in earlier/" in output
    assert "removed scores.json and report.html, which told of what was there before" in output
    done("run", configure(project, level={"epochs": 10}))
    assert [path.name for path in sorted((run / "earlier").iterdir())] == ["student-1", "student-2"]
    assert (run / "earlier" / "student-1" / "replies.json").read_bytes() == first
    assert (run / "earlier" / "student-1" / "README.md").is_file()
    done("run", project / "run.yaml")


def test_a_student_that_is_kept_may_be_renamed(project, trainable):
    done("run", project / "run.yaml")
    earlier = project / "runs" / "a" / "earlier"
    done("run", configure(project, level={"epochs": 9}))
    (earlier / "student-1").rename(earlier / "student-1-good")
    done("run", configure(project, level={"epochs": 10}))
    assert {path.name for path in earlier.iterdir()} == {"student-1-good", "student-1"}


def test_a_run_that_is_told_to_trust_reads_a_file_that_was_changed(project, trainable):
    done("run", project / "run.yaml")
    pairs = project / "runs" / "a" / "pairs" / "pairs.jsonl"
    pairs.write_text(pairs.read_text().replace('"cafe"', '"bar"'))
    config = configure(project, level={"epochs": 9})
    assert "was changed after the run wrote it" in refusal("run", config)
    done("run", config, "--trust")
    said = (project / "runs" / "a" / "student" / "replies.json").read_text()
    assert '"bar"' in said or '"cafe"' not in said


def test_a_demo_of_another_size_does_not_draw_over_the_one_that_is_there(tmp_path):
    write_demo_data(tmp_path / "d" / "data", 0, mute, pictures=2)
    before = content(tmp_path / "d" / "data")
    with pytest.raises(UserError, match="holds the pictures of a demo of 2 pictures a task(?s:.*)--run runs/NAME"):
        write_demo_data(tmp_path / "d" / "data", 0, mute, pictures=3)
    assert content(tmp_path / "d" / "data") == before
