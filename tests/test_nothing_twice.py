"""What a change asks again: only what no answer is there for, of local teachers and of served ones."""

import json
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

import parityalign as pa
from makers import content, mute, speckle
from parityalign.core import LevelResult, UserError, VerdictKind
from parityalign.models.backends.fake import FakeModel
from parityalign.pipeline import dry_steps, run_models
from parityalign.pipeline import run as run_module
from serving import prompt_of, reply, serving

IMAGES, DRAWS, TESTS = 24, 2, 30


def word(number: int) -> str:
    return f"word{'abcdefghij'[number % 10]}{'klmnopqrst'[number // 10 % 10]}"


def says(who: str, prompt: str, seed: int) -> str:
    """The teacher knows what is not divisible by 7, the student what is even; one of seven odd ones it nearly knows."""
    number = seed % 997
    if "Write one question" in prompt:
        return f"Question: What is {number}? Answer: {word(number)}"
    number = int(re.search(r"What is (\d+)", prompt)[1])
    knows = {"teacher": number % 7, "student": number % 2 == 0, "other": number % 3 == 0, "after": True}[who]
    if who == "student" and number % 14 == 9:
        return f"{word(number)} xy"  # ANLS 0.75
    return word(number) if knows else "nothing"


class Counted:
    """Counts what is asked, by model: `teacher`, `student`, `other`, `after`."""

    def __init__(self, teacher: str):
        self.teacher = teacher
        self.asked: dict[str, list[tuple[str, int]]] = {}

    def load(self, spec, loading=None):
        who = Path(spec).stem

        def answer(request, _decoding):
            self.note(who, request.prompt, request.seed)
            return says(who, request.prompt, request.seed)

        return FakeModel(answer, name=who)

    def note(self, who, prompt, seed):
        self.asked.setdefault(who, []).append((prompt, seed))

    def taken(self):
        """How many questions each model got since the last time."""
        counts = {who: len(asked) for who, asked in self.asked.items()}
        self.asked.clear()
        return counts


@contextmanager
def teacher_at(kind: str):
    counted = Counted("fake:teacher.json")
    if kind == "local":
        yield counted
        return

    async def script(body, before):
        prompt = prompt_of(body)
        if "What is" in prompt or "Write one" in prompt:
            counted.note("teacher", prompt, body.get("seed", 0))
            return reply(says("teacher", prompt, body.get("seed", 0)))
        return reply(str(len(str(body))))  # the test of whether pictures are seen

    with serving(script) as served:
        counted.teacher = f"{served.url}#m"
        yield counted


@pytest.fixture(params=["local", pytest.param("served", marks=pytest.mark.long)])
def asked(request, monkeypatch):
    def leveller(run, level, seed, *_):
        def learn(pairs, held_out, out):
            (out / "after.json").write_text("\n".join([repr(level), *sorted(pair.pair_id for pair in pairs)]))
            return LevelResult(1, 1, 2.0, 1.0)

        return learn

    with teacher_at(request.param) as counted:
        monkeypatch.setattr(run_models, "load_model", counted.load)
        monkeypatch.setattr(run_module, "leveller", leveller)
        trained = lambda this, student: this._cached(  # noqa: E731
            f"fake:{student.path / 'after.json'}", this._config.loading.student, "after", student.digest
        )
        monkeypatch.setattr(run_models.RunModels, "trained", trained)
        yield counted


@pytest.fixture
def project(tmp_path):
    for number in range(IMAGES):
        speckle(tmp_path / "pool" / f"{number:02}.png", seed=number)
    for number in range(TESTS):
        speckle(tmp_path / "test" / f"{number:02}.png", seed=1000 + number)
    write_tests(tmp_path, TESTS)
    for name in ("teacher", "student", "other"):
        (tmp_path / f"{name}.json").write_text(name)
    return tmp_path


def write_tests(folder, count):
    rows = [
        {
            "question_id": str(n),
            "image": f"test/{n % TESTS:02}.png",
            "question": f"What is {n}?",
            "answers": [word(n)] * 10,
        }
        for n in range(count)
    ]
    (folder / "tests.jsonl").write_text("".join(f"{json_of(row)}\n" for row in rows))


def json_of(row):

    return json.dumps(row)


def settings(asked, folder, **changes):
    said = {
        "run": "runs/a",
        "teacher": asked.teacher,
        "student": "fake:student.json",
        "tasks": {"textvqa": {"images": "pool", "test": "tests.jsonl", "metric": "anls"}},
        "annotate": {"pairs_per_image": DRAWS, "temperature": 1.0},
        "identify": {"threshold": 0.8, "rule": "metric"},
        "evaluate": {"resamples": 100, "speed_questions": 0, "forgotten_pairs": 10},
        "server": {"backoff": 0.01},
        **changes,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(said))
    return folder / "run.yaml"


def align(asked, folder, redo=False, **changes):
    run = pa.open_run(settings(asked, folder, **changes), progress=mute)
    run.upto(redo=redo)
    return run


@pytest.fixture
def done(asked, project):
    """A finished run; what it asked is no longer counted."""
    run = align(asked, project)
    assert asked.taken()["teacher"] == IMAGES * DRAWS + failing(run) + TESTS
    return run


def failing(run, images=None):
    """How many pairs the student has not right, so that the teacher is asked."""
    wrong = (VerdictKind.TEACHER_ONLY, VerdictKind.NEITHER)
    return sum(v.verdict in wrong for p, v in run.judged if images is None or p.image_id in images)


def test_a_run_that_is_done_asks_nothing_again(done, asked, project):
    align(asked, project)
    assert asked.taken() == {}


def test_one_more_image_costs_one_image(done, asked, project):
    before = {pair.image_id for pair in done.pairs}
    speckle(project / "pool" / "new.png", seed=77)
    run = align(asked, project)
    new = {pair.image_id for pair in run.pairs} - before
    counts = asked.taken()
    assert counts["teacher"] == DRAWS + failing(run, new) <= 4
    assert counts["student"] == DRAWS
    assert counts.get("after", 0) <= TESTS + 10  # if it was trained again


def test_one_image_fewer_asks_nobody_but_a_student_that_is_trained_again(done, asked, project):
    (project / "pool" / "03.png").unlink()
    align(asked, project)
    assert {*asked.taken()} <= {"after"}


def test_more_draws_ask_for_these_and_fewer_for_nothing(done, asked, project):
    before = {pair.pair_id for pair in done.pairs}
    run = align(asked, project, annotate={"pairs_per_image": 3, "temperature": 1.0})
    new = [v for p, v in run.judged if p.pair_id not in before]
    fails = sum(v.teacher_text is not None for v in new)
    counts = asked.taken()
    assert (counts["teacher"], counts["student"]) == (IMAGES + fails, len(new))
    align(asked, project, annotate={"pairs_per_image": 1, "temperature": 1.0})
    assert {*asked.taken()} <= {"after"}


@pytest.mark.long
@pytest.mark.parametrize("where", ["source", "task"])
def test_a_second_source_or_task_asks_about_its_own_images(done, asked, project, where):
    for number in range(5):
        speckle(project / "more" / f"{number}.png", seed=500 + number)
    own = {"test": "tests.jsonl", "metric": "anls"}
    tasks = {
        "source": {"textvqa": {"images": ["pool", "more"], **own}},
        "task": {"textvqa": {"images": "pool", **own}, "chartqa": {"images": "more"}},
    }[where]
    before = {pair.image_id for pair in done.pairs}
    run = align(asked, project, tasks=tasks)
    new = {pair.image_id for pair in run.pairs} - before
    counts = asked.taken()
    assert (counts["teacher"], counts["student"]) == (5 * DRAWS + failing(run, new), 5 * DRAWS)


@pytest.mark.parametrize("identify", [{"threshold": 0.7}, {"threshold": 0.99}, {"rule": "paper"}])
def test_another_rule_asks_the_teacher_about_pairs_newly_in_doubt(done, asked, project, identify):
    known = {v.pair_id for v in done.verdicts if v.teacher_text is not None}
    run = align(asked, project, identify={"threshold": 0.8, "rule": "metric", **identify})
    doubted = {v.pair_id for v in run.verdicts if v.teacher_text is not None}
    counts = asked.taken()
    assert counts.get("teacher", 0) == len(doubted - known) and "student" not in counts


def test_another_metric_asks_the_teacher_about_pairs_newly_in_doubt(done, asked, project):
    known = {v.pair_id for v in done.verdicts if v.teacher_text is not None}
    task = {"images": "pool", "test": "tests.jsonl", "metric": "textvqa_accuracy"}
    run = align(asked, project, tasks={"textvqa": task})
    doubted = {v.pair_id for v in run.verdicts if v.teacher_text is not None}
    counts = asked.taken()
    assert counts.get("teacher", 0) == len(doubted - known) and "student" not in counts


def test_asking_the_teacher_about_all_asks_about_the_others(done, asked, project):
    left = sum(v.teacher_text is None for v in done.verdicts)
    align(asked, project, identify={"threshold": 0.8, "rule": "metric", "ask_teacher": "all"})
    counts = asked.taken()
    assert counts["teacher"] == left and "student" not in counts


@pytest.mark.parametrize("level", [{"epochs": 7}, {"learning_rate": 0.1}, {"replay": 0.2}, {"select": "all"}])
def test_another_training_asks_the_student_after_it_alone(done, asked, project, level):
    align(asked, project, level=level)
    assert {*asked.taken()} == {"after"}


def test_a_limit_asks_nothing_and_one_more_test_question_one_of_each(done, asked, project):
    limited = {"resamples": 100, "speed_questions": 0, "forgotten_pairs": 10, "limit": 7}
    align(asked, project, evaluate=limited)
    assert asked.taken() == {}
    write_tests(project, TESTS + 1)
    align(asked, project)
    assert asked.taken() == {"student": 1, "teacher": 1, "after": 1}


@pytest.mark.parametrize("folder", ["same", "another"])
def test_another_student_asks_the_teacher_only_where_it_fails_and_the_first_did_not(done, asked, project, folder):
    known = {v.pair_id for v in done.verdicts if v.teacher_text is not None}
    changes = {"run": "runs/a" if folder == "same" else "runs/b", "answers": "runs/a/answers.sqlite"}
    if folder == "same":
        with pytest.raises(UserError, match="(?s)student was fake:.*--redo"):
            align(asked, project, student="fake:other.json", **changes)
    run = align(asked, project, redo=True, student="fake:other.json", **changes)
    doubted = {v.pair_id for v in run.verdicts if v.teacher_text is not None}
    counts = asked.taken()
    assert counts.get("teacher", 0) == len(doubted - known)
    assert "student" not in counts and counts["other"] == IMAGES * DRAWS + TESTS


@pytest.mark.parametrize("how", ["moved", "copied", "run folder renamed", "files new"])
def test_a_run_that_is_moved_copied_or_renamed_asks_nothing_and_trains_nothing(done, asked, project, tmp_path, how):
    weights = (project / "runs" / "a" / "student" / "after.json").read_bytes()
    place, changes = tmp_path.parent / f"{tmp_path.name}-elsewhere", {}
    if how == "moved":
        project.rename(place)
    elif how == "run folder renamed":
        (project / "runs" / "a").rename(project / "renamed")
        place, changes = project, {"run": "renamed"}
    else:
        shutil.copytree(project, place, copy_function=shutil.copy2 if how == "copied" else shutil.copy)
        shutil.rmtree(project / "pool")
    run = align(asked, place, **changes)
    assert asked.taken() == {}
    assert (run.path / "student" / "after.json").read_bytes() == weights
    assert "up to date" in next(each.why for each in run.outcomes if each.stage == "level")
    if how in ("moved", "copied"):  # else intake looks at the files again
        assert {each.why for each in run.outcomes} == {"up to date: nothing changed"}
    assert all(Path(pair.image).is_file() for pair in run.pairs)


def test_a_temperature_that_is_tried_and_taken_back_costs_its_own_draws_once(done, asked, project):
    before = (project / "runs" / "a" / "pairs" / "pairs.jsonl").read_bytes()
    align(asked, project, annotate={"pairs_per_image": DRAWS, "temperature": 0.7})
    assert asked.taken()["teacher"] >= IMAGES * DRAWS
    run = align(asked, project)
    assert {*asked.taken()} <= {"after"}
    assert (run.path / "pairs" / "pairs.jsonl").read_bytes() == before


def test_a_dry_run_says_what_a_run_asks_and_changes_nothing(done, asked, project):
    speckle(project / "pool" / "new.png", seed=77)
    before = content(project / "runs" / "a")
    config = pa.open_run(settings(asked, project), progress=mute).config
    steps = {step.stage: step for step in dry_steps(config, mute)}
    assert steps["annotate"].questions == DRAWS and "its input images changed" in steps["annotate"].why
    assert steps["identify"].questions is None
    assert asked.taken() == {} and content(project / "runs" / "a") == before
    (project / "pool" / "new.png").unlink()
    assert {step.why for step in dry_steps(config, mute)} == {"up to date"}
