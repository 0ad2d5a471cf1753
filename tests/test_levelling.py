"""Levelling in a run: the signals it is given, with fake models, and terms that nothing is known for."""

import json

import pytest

from parityalign import training
from parityalign.config.backend import Backend
from parityalign.models.backends import fake
from parityalign.pipeline import level, objective
from parityalign.pipeline import run as pipeline_run
from projects import WORDS, configure, done, refusal


def pretend(monkeypatch) -> None:
    """Fake models that are said to show more than text and to be trainable, so that it is found out later."""
    monkeypatch.setattr(fake, "BACKEND", Backend(load=fake.load, shows=True))
    monkeypatch.setattr(level, "backend_of", lambda spec: Backend(load=fake.load, trainable=True))


@pytest.mark.slow
@pytest.mark.parametrize("term", ["confidence", "attention"])
def test_a_term_that_the_teacher_shows_nothing_for_is_refused_by_name(project, monkeypatch, term):
    pretend(monkeypatch)
    config = configure(project, level={"objective": {"answer": 1, term: 1}})
    said = refusal("run", config)
    assert f"has the term '{term}', but the teacher fake:" in said
    assert "has no signals for it on any pair" in said
    assert (project / "runs" / "a" / "discrepancy" / "manifest.json").exists()


@pytest.mark.slow
def test_of_the_discrepancy_objective_what_the_teacher_shows_nothing_for_is_left_out_and_told(project, trainable):
    said = done("run", configure(project, level={"objective": "discrepancy"}))
    note = "Without confidence and reasoning: the teacher has no signals for it on any pair."
    assert json.loads((project / "runs" / "a" / "student" / "manifest.json").read_text())["note"].startswith(note)
    assert note in said
    assert note in (project / "runs" / "a" / "report.html").read_text()


@pytest.mark.slow
def test_asking_for_what_a_term_asks_for_anyway_changes_nothing(project, trainable):
    done("run", configure(project, level={"objective": "discrepancy"}))
    said = done("run", configure(project, level={"objective": "discrepancy"}, discrepancy={"rationales": True}))
    assert said.count("up to date: nothing changed") >= 5
    assert "done again" not in said


@pytest.mark.slow
def test_rationales_that_are_there_stay_where_nobody_asks_for_them_any_more(project, trainable):
    done("run", configure(project, discrepancy={"rationales": True}))
    said = done("run", configure(project, discrepancy={"always": True}))
    assert "discrepancy: up to date" in said
    assert "discrepancy: done again" in done(
        "run", configure(project, discrepancy={"always": True, "max_new_tokens": 9})
    )


@pytest.mark.slow
def test_asking_for_rationales_compares_the_models(project, trainable):
    done("run", configure(project, discrepancy={"rationales": True}))
    found = project / "runs" / "a" / "discrepancy"
    replies = [json.loads(line) for line in (found / "rationale_replies.jsonl").read_text().splitlines()]
    assert sorted(reply["text"] for reply in replies) == sorted(WORDS)  # the fake teacher says what it sees
    # Which is no rationale.
    assert json.loads((found / "manifest.json").read_text())["counts"]["rationale unreadable"] == len(WORDS)


@pytest.mark.slow
@pytest.mark.parametrize("weight_by", ["none", "confidence_gap"])
def test_weights_of_pairs_count_where_the_answer_alone_is_learnt_too(project, trainable, monkeypatch, weight_by):
    made = []
    monkeypatch.setattr(fake, "BACKEND", Backend(load=fake.load, shows=True))
    monkeypatch.setattr(training, "WeightedLoss", lambda weights, *, settings, signals: made.append(signals))
    monkeypatch.setattr(objective, "_weights", lambda run, stored, trained: {"a": 2.0})

    plain = pipeline_run.leveller

    def leveller(run, *told):
        objective.objective_of(run, run.config.level, [])
        return plain(run, *told)

    monkeypatch.setattr(pipeline_run, "leveller", leveller)
    done("run", configure(project, discrepancy={"weight_by": weight_by}))
    assert [signals and signals.weights for signals in made] == [None if weight_by == "none" else {"a": 2.0}]
    inputs = json.loads((project / "runs" / "a" / "student" / "manifest.json").read_text())["inputs"]
    assert ("discrepancy" in inputs) == (weight_by != "none")


@pytest.mark.slow
def test_weights_that_nothing_is_known_for_are_refused_by_name(project, monkeypatch):
    pretend(monkeypatch)
    said = refusal("run", configure(project, discrepancy={"weight_by": "confidence_gap"}))
    assert "discrepancy.weight_by is confidence_gap, but the teacher fake:" in said
    assert "Set it to none" in said


@pytest.mark.slow
def test_the_command_compares_the_models_of_a_run_that_did_not_ask_for_it(project, trainable):
    run = project / "runs" / "a"
    done("run", configure(project))
    asked, scores = (run / "run.yaml").read_text(), (run / "scores.json").read_bytes()
    assert not (run / "discrepancy").exists()
    said = done("discrepancy", run)
    assert "discrepancy: done" in said and "teacher opaque" in said
    assert (run / "discrepancy" / "manifest.json").exists()
    assert ((run / "run.yaml").read_text(), (run / "scores.json").read_bytes()) == (asked, scores)
    again = done("discrepancy", run)
    assert "discrepancy:" not in again and again.splitlines()[-1] == said.splitlines()[-1]
    assert "discrepancy" not in done("run", configure(project))
