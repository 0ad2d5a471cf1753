"""A plan's trial: what it finds on pictures is what a run does with them, and its pace is the trainer's."""

import json
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from parityalign.config.automatic import decide_level
from parityalign.config.run_yaml import load_config
from parityalign.core.errors import UserError, WorkFailed
from parityalign.demo.worlds import WORLDS
from parityalign.engines.store import AnswerStore
from parityalign.planning import planner, trial
from parityalign.planning.assumptions import _of_shares
from parityalign.planning.planner import PlanOptions, project_run
from parityalign.planning.sampling import Sample, SamplingOptions, sample
from parityalign.planning.trial import Trial, as_drawn, tried
from parityalign.planning.works import Shares
from parityalign.tasks import task_of
from parityalign.training import trainer
from parityalign.training.pace import Pace, measured_pace
from projects import configure, done

WORLD = "textvqa"


def drawn(folder: Path, count: int) -> Path:
    """Pictures of the demo in a pool, as PNG files, which a sample is saved as too."""
    (folder / "pool").mkdir()
    for seed in range(count):
        WORLDS[WORLD](Random(seed)).image.save(folder / "pool" / f"{seed}.png")
    return folder


def of_tiny_models(folder: Path, **changes) -> Path:
    """A run on pictures of a few pixels, of models that say nothing that can be read."""
    tiny.drawn(folder / "pool", 4)
    model = f"hf:{tiny.fast_vlm(folder / 'model')}"
    tasks = {WORLD: {"images": "pool", "kinds": "none"}}
    few = {"annotate": {"max_new_tokens": 4}, "identify": {"max_new_tokens": 2}}
    return configure(folder, teacher=model, student=model, tasks=tasks, **few, **changes)


@pytest.mark.long
def test_a_trial_on_the_whole_pool_finds_what_the_run_finds(tmp_path):
    config = configure(
        drawn(tmp_path, 4),
        teacher="embedded:teacher",
        student="embedded:student",
        tasks={WORLD: {"images": "pool", "kinds": "none"}},
        annotate={"pairs_per_image": 3, "top_p": 1.0, "max_new_tokens": 32},
        identify={"max_new_tokens": 8, "ask_teacher": "all"},
        verify={"least_likely": 0.0, "least_sure": 0.0},
        level={"max_steps": 1, "batch_size": 2},
    )
    plan = project_run(load_config(config), PlanOptions())
    done("run", config, "--until", "identify")
    pairs, verdicts = (
        json.loads((tmp_path / "runs" / "a" / name / "manifest.json").read_text())["counts"]
        for name in ("pairs", "verdicts")
    )
    rows = {(row.stage, row.model): row for row in plan.rows}
    assert rows["annotate", "teacher"].requests == pairs["replies"] == 12
    assert rows["identify", "student"].requests == pairs["pairs"] < 12  # some draws repeat others
    said = next(line for line in plan.assumed if line.startswith(f"on the sample of {WORLD} "))
    assert said.endswith(f"{verdicts['gaps'] / pairs['pairs']:.0%} are gaps")
    assert all(row.seconds > 0 and row.memory > 0 for row in plan.rows)


@pytest.mark.long
def test_where_no_pair_can_be_read_models_are_timed_on_made_up_ones_and_shares_are_assumed(tmp_path):
    config = load_config(of_tiny_models(tmp_path, level={"method": "full", "batch_size": 2, "epochs": 1}))
    plan = project_run(config, PlanOptions(SamplingOptions(pictures=4), benchmark=True, gap_rate=0.25))
    assert [row.requests for row in plan.rows if row.stage == "identify"] == [4, 1]
    assert any("25% of the pairs wrong and each of these is a gap; every reply" in line for line in plan.assumed)
    assert [line for line in plan.assumed if "asked about" in line] == [
        "teacher: seconds as measured here, asked about 2 pairs",
        "student: seconds as measured here, asked about 4 pairs and trained a few steps on their answers",
    ]
    served = config.model_copy(update={"teacher": "http://localhost:1/v1#large"})
    tasks = {WORLD: task_of(WORLD, served.tasks[WORLD])}
    samples = {WORLD: sample(tasks[WORLD], served.tasks[WORLD], SamplingOptions(pictures=4), limit=None)}
    decided = served.model_copy(update={"level": decide_level(served.level, None)})
    found = tried(decided, tasks, samples, ["student"], time.monotonic)
    assert found.paces.keys() == {"student"} and not found.shares
    unfit = decided.model_copy(update={"level": decided.level.model_copy(update={"method": "qlora"})})
    pace = tried(unfit, tasks, samples, ["student"], time.monotonic).paces["student"]
    assert pace.training is None and "qlora" in pace.not_trained


def test_a_gap_rate_that_is_given_takes_the_place_of_the_one_that_was_found():
    found = Trial({}, {"tried": Shares(0.7, 0.6, 0.5)})
    tasks = {"tried": None, "not tried": None}
    assert planner._shares(found, tasks, None) == {"tried": Shares(0.7, 0.6, 0.5), "not tried": Shares(1.0, 0.5, 0.5)}
    assert planner._shares(found, tasks, 0.2) == {"tried": Shares(0.7, 0.2, 0.2), "not tried": Shares(1.0, 0.2, 0.2)}


def test_the_pace_is_that_of_different_steps_and_of_looks_without_what_comes_before(tmp_path, monkeypatch):
    config = load_config(of_tiny_models(tmp_path))
    config = config.model_copy(update={"level": decide_level(config.level, None)})
    paths = sorted(map(str, (tmp_path / "pool").iterdir()))
    pairs = tiny.pairs(paths, ("red", "green", "blue"))
    steps, looks, now = [], [], [0.0]
    step, look = trainer.LevelTrainer.training_step, trainer.LevelTrainer.held_out_loss

    def slow_step(self, model, inputs, *more):
        steps.append([example.image for example in inputs["begun"].examples])
        now[0] += 3.0 * len(steps[-1]) + (100 if len(steps) == 1 else 0)
        return step(self, model, inputs, *more)

    def slow_look(self, *more):
        looks.append(len(self._looked_at))
        now[0] += 2.0 * len(self._looked_at) + (100 if len(looks) == 1 else 0)
        return look(self, *more)

    monkeypatch.setattr(trainer.LevelTrainer, "training_step", slow_step)
    monkeypatch.setattr(trainer.LevelTrainer, "held_out_loss", slow_look)
    pace = measured_pace(
        config,
        {pair.task: "{question}" for pair in pairs},
        train=pairs,
        batch_size=3,
        held_out=pairs,
        clock=lambda: now[0],
    )
    assert pace == Pace(trained=3.0, looked_at=2.0)
    assert set(looks) == {len(pairs)}
    # Steps differ, as a run's do, and none has a picture twice.
    assert {len(set(step)) for step in steps} == {3} and {image for step in steps for image in step} == set(paths)


class Scripted:
    """A model that writes one and the same pair about every picture, and answers `no`; a call takes a second."""

    name, special_tokens = "scripted", frozenset[str]()

    def __init__(self, fails: bool = False):
        self.now, self.drawn, self.closed, self.fails = 0.0, 0, 0, fails

    def generate(self, requests, decoding):
        if self.fails:
            raise RuntimeError("it broke")
        self.now += 1
        self.drawn += len(requests) * decoding.pair
        return ["Question: What is it?\nAnswer: a cat" if decoding.pair else "no"] * len(requests)

    def close(self):
        self.closed += 1


def scripted(monkeypatch, model: Scripted) -> None:
    """Has a trial load this model for both roles; it cannot be trained."""

    def not_here(*given, **how):
        raise UserError("not here")

    monkeypatch.setattr(trial, "load_model", lambda spec, loading: model)
    monkeypatch.setattr(trial, "measured_pace", not_here)


def two_tasks(folder: Path, **changes):
    """A run, its tasks and the samples of them: of one three pictures were opened, of the other none."""
    tiny.drawn(folder / "pool", 3)
    named = {name: {"images": "pool", "kinds": "none"} for name in (WORLD, "okvqa")}
    config = load_config(configure(folder, tasks=named, **changes))
    config = config.model_copy(update={"level": decide_level(config.level, None)})
    tasks = {name: task_of(name, data) for name, data in config.tasks.items()}
    few = {WORLD: 3, "okvqa": 0}
    samples = {
        name: sample(task, config.tasks[name], SamplingOptions(pictures=few[name], size=(8, 8)), limit=None)
        for name, task in tasks.items()
    }
    return config, tasks, samples


def test_what_comes_of_draws_is_not_told_of_pictures_that_were_not_opened(tmp_path, monkeypatch):
    model = Scripted()
    scripted(monkeypatch, model)
    config, tasks, samples = two_tasks(tmp_path)
    found = tried(config, tasks, samples, ["teacher", "student"], lambda: model.now)
    assert found.shares.keys() == {WORLD} and found.paces["student"].not_trained == "not here"
    shares = planner._shares(found, tasks, None)
    told, assumed = _of_shares(shares, found.shares)
    assert told.startswith(f"on the sample of {WORLD} ")
    assert assumed.startswith("not tried on pictures of okvqa: the student has 50%")
    blank = {"okvqa": samples["okvqa"]}
    alone = config.model_copy(update={"tasks": {"okvqa": config.tasks["okvqa"]}})
    found = tried(alone, {"okvqa": tasks["okvqa"]}, blank, ["teacher", "student"], lambda: model.now)
    assert found.paces["teacher"].annotate > 0 and not found.shares


def test_the_time_of_further_draws_is_counted_once(tmp_path, monkeypatch):
    model = Scripted()
    scripted(monkeypatch, model)
    settings = {"pairs_per_image": 2, "extra_draws": 1.0, "batch_size": 1}
    config, tasks, samples = two_tasks(tmp_path, annotate=settings)
    pace = tried(config, tasks, samples, ["teacher"], lambda: model.now).paces["teacher"]
    ordinary = 2 * 3
    assert ordinary < model.drawn
    counted = ordinary + config.annotate.most_further(ordinary)  # as a plan's row has it
    assert counted * pace.annotate == pytest.approx(model.drawn)  # a second a batch of one


def test_a_model_that_breaks_is_let_go_of_and_so_is_its_store(tmp_path, monkeypatch):
    model, closed = Scripted(fails=True), []
    scripted(monkeypatch, model)
    close = AnswerStore.close
    monkeypatch.setattr(AnswerStore, "close", lambda self: closed.append(self) or close(self))
    with pytest.raises(RuntimeError, match="it broke"):
        tried(*two_tasks(tmp_path), ["student"], time.monotonic)
    assert model.closed == len(closed) == 1


def test_where_no_model_is_tried_no_picture_is_written(tmp_path):
    config, tasks, _ = two_tasks(tmp_path)
    unwritable = {name: Sample(1, 0, [None], []) for name in tasks}
    assert tried(config, tasks, unwritable, [], time.monotonic) == Trial({}, {})


def test_a_student_whose_training_fails_is_released(tmp_path, monkeypatch):
    config = load_config(of_tiny_models(tmp_path))
    config = config.model_copy(update={"level": decide_level(config.level, None)})
    pairs = tiny.pairs(sorted(map(str, (tmp_path / "pool").iterdir())), ("red",))
    released, release = [], trainer.LevelTrainer.release

    def broken(self, *more):
        raise WorkFailed("no memory")

    monkeypatch.setattr(trainer.LevelTrainer, "training_step", broken)
    monkeypatch.setattr(trainer.LevelTrainer, "release", lambda self: released.append(release(self)))
    with pytest.raises(WorkFailed, match="no memory"):
        measured_pace(config, {"toy": "{question}"}, train=pairs, batch_size=2, held_out=pairs, clock=time.monotonic)
    assert released == [None]


@pytest.mark.parametrize(("pictures", "apart"), [(20, 11.9), (10_000, 16.0)])
def test_as_many_pairs_of_a_step_are_about_one_picture_as_by_chance_in_the_whole_pool(pictures, apart):
    paths = [f"{number}.png" for number in range(20)]
    pairs = [pair for number in range(4) for pair in tiny.pairs(paths, (str(number),))]
    train, size = as_drawn(pairs, pictures, 16)
    drawn_by_chance = [len({n // 4 for n in Random(seed).sample(range(4 * pictures), 16)}) for seed in range(400)]
    assert sum(drawn_by_chance) / 400 == pytest.approx(apart, abs=0.3)
    steps = [train[start : start + size] for start in range(0, len(train) - size + 1, size)]
    assert size == 16 and {len({pair.image for pair in step}) for step in steps} == {round(apart)}
    assert all(len({(pair.image, pair.answer) for pair in step}) == size for step in steps)
    few, size = as_drawn(pairs[:5], 10_000, 16)  # of pictures each of which has one
    assert size == 5 and few == pairs[:5]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(1, 40), st.integers(1, 20))
def test_steps_that_are_tried_are_no_larger_than_a_runs_and_go_through_a_pictures_pairs_in_turn(has, pictures, batch):
    pairs = [
        pair for at, count in enumerate(has) for n in range(count) for pair in tiny.pairs([f"{at}.png"], (str(n),))
    ]
    train, size = as_drawn(pairs, pictures, batch)
    assert 1 <= size <= min(batch, len(pairs)) and len(train) % size == 0
    turns = {}
    for pair in train:
        turns.setdefault(pair.image, []).append(int(pair.answer))
    for image, said in turns.items():
        count = has[int(image.partition(".")[0])]
        assert said == [turn % count for turn in range(len(said))]
