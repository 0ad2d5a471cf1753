"""Levelling in a run: several rounds with fake models, what is kept of them, and terms that nothing is known for."""

import json

import pytest

from parityalign.core.interfaces import Decoding, LevelResult, Request
from parityalign.core.records import Verdict
from parityalign.models.backends import fake
from parityalign.pipeline import level, objective, run
from parityalign.report.files import read_records
from parityalign.stages._remembering import remembering
from parityalign.training import weighted_loss
from projects import WORDS, configure, done, refusal, table

TWO = {"rounds": 2, "held_out": 0.01}


@pytest.fixture
def slow(monkeypatch):
    """Students that learn one more of the words they are trained on in each round; what each began with is noted."""
    began = []

    def leveller(run, settings, step="level", *, student=None, seed=None):
        def learn(pairs, held_out, out):
            knows = json.loads((student / "knows.json").read_text()) if student else WORDS[:4]
            new = [pair.answer for pair in (*pairs, *held_out) if pair.answer not in knows]
            began.append((student and student.parent.name, sorted(new)))
            gained = bool(new) and len(began) <= leveller.useful
            table(out / "replies.json", knows + new[:1])
            (out / "knows.json").write_text(json.dumps(knows + new[:1]))
            return LevelResult(1, int(gained), 2.0, 1.0 if gained else 2.0)

        return learn

    leveller.useful = 9
    monkeypatch.setattr(level, "leveller", leveller)
    own = lambda run, folder: fake.load(str(folder / "replies.json"))  # noqa: E731
    monkeypatch.setattr(run.Run, "load_own", own)
    began_with = leveller
    began_with.began = began
    return began_with


def verdicts(run, name):
    return [verdict.verdict for verdict in read_records(run / name / "verdicts.jsonl", Verdict)]


def test_each_round_goes_on_from_the_student_and_the_gaps_of_the_last(project, slow):
    said = done("run", configure(project, level=TWO))
    assert all(f"\n{name}: done" in said for name in ("level, round 1", "level, round 2, identify", "level, round 2"))
    run = project / "runs" / "a"
    (first, new), (second, still) = slow.began
    assert (first, second) == (None, "1")
    assert len(new) == 4
    assert len(still) == 3
    assert verdicts(run, "verdicts").count("teacher_only") == 4
    assert verdicts(run, "rounds/2/verdicts").count("teacher_only") == 3
    manifest = json.loads((run / "student" / "manifest.json").read_text())
    assert len(manifest["rounds"]) == 2
    sizes = [each["counts"]["training"] for each in manifest["rounds"]]
    told = "Rounds: {} pairs and 1 steps; {} pairs and 1 steps. This is the student of round 2.".format(*sizes)
    assert told in (run / "report.html").read_text()
    kept, last = run / "student" / "replies.json", run / "rounds" / "2" / "student" / "replies.json"
    assert kept.read_bytes() == last.read_bytes()


def test_a_round_that_gains_nothing_is_the_last_and_its_student_is_not_kept(project, slow):
    slow.useful = 1
    done("run", configure(project, level={**TWO, "rounds": 5}))
    run = project / "runs" / "a"
    assert len(slow.began) == 2
    kept, first = run / "student" / "replies.json", run / "rounds" / "1" / "student" / "replies.json"
    assert kept.read_bytes() == first.read_bytes()
    assert len(json.loads((run / "student" / "manifest.json").read_text())["rounds"]) == 2


def test_finished_rounds_are_not_done_again_until_a_setting_changes(project, slow):
    config = configure(project, level=TWO)
    done("run", config)
    done("run", config)
    assert len(slow.began) == 2
    said = done("run", configure(project, level={**TWO, "learning_rate": 1e-5}))
    assert len(slow.began) == 4
    assert "level.learning_rate was 0.0002, is 1e-05" in said


def test_a_model_that_remembers_asks_only_what_is_new_and_is_loaded_only_for_that():
    model = fake.FakeModel(lambda request, decoding: f"new {request.prompt}")
    loads = []

    def load():
        loads.append(1)
        return model

    known = remembering({("a.png", "what?"): "tea"}, "fake:t", load)()
    old, new = Request("a.png", "what?"), Request("b.png", "what?")
    assert known.generate([old, old], Decoding(4)) == ["tea", "tea"]
    assert not loads
    assert known.generate([new, old, new], Decoding(4)) == ["new what?", "tea", "new what?"]
    assert (len(loads), [request.image for request in model.asked]) == (1, ["b.png", "b.png"])


@pytest.mark.parametrize("term", ["confidence", "attention"])
def test_a_term_that_the_teacher_shows_nothing_for_is_refused_by_name(project, monkeypatch, term):
    monkeypatch.setattr(level, "split_model", lambda spec: ("hf", spec))  # a fake student, but one to be trained
    config = configure(project, level={"objective": {"answer": 1, term: 1}})
    said = refusal("run", config)
    assert f"has the term '{term}', but the teacher fake:" in said
    assert "showed nothing for it on any pair" in said
    assert (project / "runs" / "a" / "evidence" / "manifest.json").exists()


def test_of_the_discrepancy_objective_what_the_teacher_shows_nothing_for_is_left_out_and_told(project, trainable):
    said = done("run", configure(project, level={"objective": "discrepancy"}))
    note = "Without confidence and reasoning: the teacher shows nothing for it on any pair."
    assert json.loads((project / "runs" / "a" / "student" / "manifest.json").read_text())["note"] == note
    assert note in said
    assert note in (project / "runs" / "a" / "report.html").read_text()


@pytest.mark.parametrize("evidence", [{"explain": True}, {"always": True}])
def test_asking_for_what_a_term_asks_for_anyway_changes_nothing(project, trainable, evidence):
    done("run", configure(project, level={"objective": "discrepancy"}))
    said = done("run", configure(project, level={"objective": "discrepancy"}, evidence=evidence))
    assert said.count("up to date: nothing changed") >= 5
    assert "done again" not in said


def test_explanations_that_are_there_stay_where_nobody_asks_for_them_any_more(project, trainable):
    done("run", configure(project, evidence={"explain": True}))
    said = done("run", configure(project, evidence={"always": True}))
    assert "observe: up to date" in said
    assert "observe: done again" in done("run", configure(project, evidence={"always": True, "max_new_tokens": 9}))


def test_asking_for_explanations_gathers_evidence(project, trainable):
    done("run", configure(project, evidence={"explain": True}))
    assert (project / "runs" / "a" / "evidence" / "explanation_replies.jsonl").exists()


@pytest.mark.parametrize("weight_by", ["none", "confidence_gap"])
def test_weights_of_pairs_count_where_the_answer_alone_is_learnt_too(project, slow, monkeypatch, weight_by):
    made = []
    monkeypatch.setattr(weighted_loss, "WeightedLoss", lambda weights, *, divergence, evidence: made.append(evidence))
    monkeypatch.setattr(objective, "_weights", lambda run, stored: {"a": 2.0})

    def leveller(run, *told, **options):
        objective.objective_of(run, run.config.level, [])
        return slow(run, *told, **options)

    monkeypatch.setattr(level, "leveller", leveller)
    done("run", configure(project, evidence={"weight_by": weight_by}))
    assert [evidence and evidence.weights for evidence in made] == [None if weight_by == "none" else {"a": 2.0}]
    inputs = json.loads((project / "runs" / "a" / "student" / "manifest.json").read_text())["inputs"]
    assert ("evidence" in inputs) == (weight_by != "none")


def test_weights_that_nothing_is_known_for_are_refused_by_name(project, monkeypatch):
    monkeypatch.setattr(level, "split_model", lambda spec: ("hf", spec))
    said = refusal("run", configure(project, evidence={"weight_by": "confidence_gap"}))
    assert "evidence.weight_by is confidence_gap, but the teacher fake:" in said
    assert "Set it to none" in said


def test_observing_without_a_reason_is_refused_with_the_way_to_do_it(project, trainable):
    config = configure(project)
    done("run", config)
    assert "evidence: {always: true}" in refusal("observe", project / "runs" / "a")


def test_every_round_is_judged_by_the_pairs_that_the_first_one_held_out(project, monkeypatch, slow):
    seen = []
    plain = level.leveller

    def leveller(*told, **options):
        learn = plain(*told, **options)

        def noted(pairs, held_out, out):
            seen.append(({pair.image_id for pair in pairs}, {pair.pair_id for pair in held_out}, held_out))
            return learn(pairs, held_out, out)

        return noted

    monkeypatch.setattr(level, "leveller", leveller)
    done("run", configure(project, level={**TWO, "held_out": 0.3}))
    (_, first, _), (images, second, pairs) = seen
    assert first == second
    assert not images & {pair.image_id for pair in pairs}
