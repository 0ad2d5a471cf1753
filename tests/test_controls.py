"""What the demo's controls train on."""

from collections import Counter

import pytest

from makers import mute
from parityalign.config.run_yaml import load_config
from parityalign.core import CONTROLS, Controls, LevelResult
from parityalign.core.records import Answer, ImageRef
from parityalign.demo.controls import is_true, true_pairs
from parityalign.pipeline import controls
from parityalign.pipeline.controls import Arm, identified_of, scored
from parityalign.pipeline.pipeline import align
from parityalign.pipeline.preflight import open_run_folder
from parityalign.report import read_record
from parityalign.stages.evaluate import AFTER_FILE
from parityalign.stages.level import Choice
from parityalign.tasks import load_task
from projects import WORDS, configure, done, refusal, table

LEVELLED = LevelResult(steps=1, best_step=1, held_out_loss_before=1.0, held_out_loss_after=0.5)


@pytest.fixture
def images(tmp_path):
    """Pool pictures of charts: the seed is the name, and what is true of them is drawn again from it."""
    return [ImageRef(image_id=str(seed), path=str(tmp_path / f"{seed}.png"), task="chartqa") for seed in range(40)]


def test_true_labels_draw_the_kinds_as_evenly_as_a_teacher_does(images):
    pairs = true_pairs(images, {"chartqa": 200}, seed=0)
    values = sum(pair.question.startswith("What is the value of") for pair in pairs)
    titles = sum(pair.question == "What is the title of the chart?" for pair in pairs)
    assert 0.4 < titles / values < 1  # a chart has one title and up to ten values, by label and by colour


@pytest.mark.long
def test_true_labels_are_true_and_never_the_same_twice(images):
    pairs = true_pairs(images, {"chartqa": 10_000}, seed=0)
    assert max(Counter((pair.image_id, pair.question, pair.answer) for pair in pairs).values()) == 1
    assert all(is_true(pair, load_task("chartqa")) for pair in pairs)
    assert len(pairs) < 10_000  # all that there are


def test_true_labels_follow_the_seed(images):
    first, again, other = (true_pairs(images, {"chartqa": 50}, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert {pair.image_id for pair in other} <= {image.image_id for image in images}


def test_a_control_says_how_far_the_run_is_ahead_of_it_question_by_question(project, trainable):
    with open_run_folder(load_config(project / "run.yaml"), mute) as run:
        assert list(align(run))[-1] == "report"
        arm, own = Arm("any", "", Choice([], [], 0)), list(run.artifact("answers").stream(AFTER_FILE, Answer))
        found = []
        for name, wrong in (("same", 0), ("worse", 2)):
            control = run.folder.artifact(name, inputs={}, settings={})
            said = [each.model_copy(update={"text": "no"}) if place < wrong else each for place, each in enumerate(own)]
            control.stream(AFTER_FILE, Answer).append(said)
            found.append(scored(run, control, arm, steps=1))
    same, worse = found
    assert (same.run_ahead.score, same.run_ahead.ci) == (0, (0, 0)) and same.mean.score == 100
    assert worse.run_ahead.score == same.mean.score - worse.mean.score == 25
    low, high = worse.run_ahead.ci
    assert 0 <= low < 25 < high


def test_a_control_is_not_trained_again_for_a_setting_that_only_changes_speed(project, trainable, monkeypatch):
    trained = []

    def leveller(*_):
        def level(training, held_out, out):
            trained.append(table(out / "replies.json", WORDS))
            return LEVELLED

        return level

    monkeypatch.setattr(controls, "leveller", leveller)
    for level, times in (({"micro_batch_size": 4}, 1), ({"micro_batch_size": 2}, 1), ({"epochs": 9}, 2)):
        with open_run_folder(load_config(configure(project, level=level)), mute) as run:
            assert list(align(run))[-1] == "report"
            controls._control(run, identified_of(run, run.config.level), Arm("any", "", Choice([], [], 0)))
        assert len(trained) == times


def test_any_run_can_be_compared_with_training_on_something_else(project, trainable, monkeypatch):
    def leveller(*_):
        def level(training, held_out, out):
            table(out / "replies.json", WORDS[:6])
            return LEVELLED

        return level

    monkeypatch.setattr(controls, "leveller", leveller)
    made = done("run", project / "run.yaml", "--controls", "random, format")
    found = read_record(project / "runs" / "a" / CONTROLS, Controls)
    assert [row.name for row in found.controls] == ["random pairs", "format only"] and found.gap_precision is None
    assert "come with the form of the answers alone" in " ".join(made.split())
    page = (project / "runs" / "a" / "report.html").read_text()
    assert "To pick gaps rather than as many pairs at random" in page


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("randm", "no control 'randm'. Did you mean random"),
        (",", "no control ','"),
        ("all,truth", "no control 'truth'"),
    ],
)
def test_a_control_that_there_is_not_is_answered_with_those_that_there_are(project, said, answer):
    told = " ".join(refusal("run", project / "run.yaml", "--controls", said).split())
    assert answer in told and "gaps, all, random, format" in told
