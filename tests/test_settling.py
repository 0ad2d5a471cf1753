"""Settling: what words leave open is asked the teacher, without the picture."""

import pytest

from makers import artifact, kept, mute, task
from parityalign.config.loading import LoadingSettings
from parityalign.config.schema import IdentifySettings
from parityalign.config.serving import ServerSettings
from parityalign.core.records import Pair, Verdict, content_id
from parityalign.engines import AnswerStore, TwoModels, cached, connect
from parityalign.models.backends.fake import FakeModel
from parityalign.models.open import load_model
from parityalign.stages.identify import VERDICTS, identify_gaps
from parityalign.stages.parsing import yes_or_no
from parityalign.stages.settling import SETTLED, Settled
from serving import image_of, prompt_of, serving
from serving import reply as reply_of

QUESTION = "What is it?"


def pair(answer):
    name = content_id(answer)
    return Pair(
        pair_id=name, image_id="i", image="i.png", task="toy", question=QUESTION, answer=answer, teacher="teacher"
    )


def run(folder, answers, student_says, teacher_says, same, **options):
    """One pair for each answer; `same`: the reply to a question without a picture, by answer B."""
    student = FakeModel(lambda request, _: student_says, name="student")

    def reply(request, decoding):
        if request.image:
            return teacher_says
        assert decoding.temperature == 0 and QUESTION in request.prompt
        said = request.prompt.partition("Answer B: ")[2].splitlines()[0]
        return same[said]

    teacher = FakeModel(reply, name="teacher")
    made = artifact(folder, "verdicts")
    settings = IdentifySettings.model_validate({"settle": "teacher"} | options)
    models = TwoModels(kept(folder, student), kept(folder, teacher))
    identify_gaps(made, list(map(pair, answers)), {"toy": task()}, models, settings=settings, progress=mute)
    asked = [request.prompt for request in teacher.asked if not request.image]
    return made, [str(verdict.verdict) for verdict in made.stream(VERDICTS, Verdict)], asked


# The student says `red bus`, the teacher `large red bus`: both hold the pair's answer, and more.
@pytest.mark.parametrize(
    ("student", "teacher", "verdict", "asked"),
    [
        ("yes", None, "student_right", 1),
        ("No.", "Yes, they do.", "teacher_only", 2),
        ("no", "no", "neither", 2),
        ("no", "perhaps", "unsure", 2),
        ("Both are vehicles.", None, "unsure", 1),
        ("", None, "unsure", 1),
    ],
)
def test_the_teacher_decides_what_words_leave_open(tmp_path, student, teacher, verdict, asked):
    same = {"red bus": student, "large red bus": teacher}
    _, verdicts, prompts = run(tmp_path, ["bus"], "red bus", "large red bus", same)
    assert verdicts == [verdict] and len(prompts) == asked
    assert all("Answer A: bus\n" in prompt for prompt in prompts)


def test_only_what_words_leave_open_is_asked(tmp_path):
    made, verdicts, asked = run(tmp_path, ["red bus", "dog", "bus"], "red bus", "dog", {"red bus": "yes"})
    assert verdicts == ["student_right", "teacher_only", "student_right"] and len(asked) == 1
    assert made.manifest["settled"] == {"the same": 1, "not the same": 0, "neither yes nor no": 0}
    (settled,) = made.stream(SETTLED, Settled)
    assert (settled.who, settled.text, settled.reply, settled.same) == ("student", "red bus", "yes", True)


def test_by_default_the_pair_stays_unsure_and_nobody_is_asked(tmp_path):
    made, verdicts, asked = run(tmp_path, ["bus"], "red bus", "bus", {}, settle=None)
    assert (verdicts, asked) == (["unsure"], []) and "settled" not in made.manifest
    assert not (made.path / SETTLED).exists()


def test_replies_that_are_neither_yes_nor_no_are_counted_and_told(tmp_path):
    made, _, _ = run(tmp_path, ["bus"], "red bus", "bus", {"red bus": "I cannot see it"})
    assert made.manifest["settled"]["neither yes nor no"] == 1
    assert "neither yes nor no of 1 of 1 answers" in str(made.manifest["note"])


def test_the_verdict_says_who_settled_it(tmp_path):
    made, _, _ = run(tmp_path, ["bus"], "red bus", "bus", {"red bus": "yes"})
    (verdict,) = made.stream(VERDICTS, Verdict)
    assert "the teacher says the same" in verdict.reason


def test_a_served_teacher_is_asked_without_a_picture(tmp_path):
    student = FakeModel(lambda request, _: "red bus", name="student")
    sent = []

    async def script(body, before):
        sent.append((image_of(body), prompt_of(body)))
        return reply_of("Yes.")

    with serving(script) as served:
        settings, store = IdentifySettings(settle="teacher"), AnswerStore()
        teacher = cached(connect(f"{served.url}#m", LoadingSettings(), ServerSettings(), store), store)
        made, models = artifact(tmp_path, "verdicts"), TwoModels(kept(tmp_path, student), teacher)
        identify_gaps(made, [pair("bus")], {"toy": task()}, models, settings=settings, progress=mute)
    assert [verdict.verdict for verdict in made.stream(VERDICTS, Verdict)] == ["student_right"]
    assert [image for image, prompt in sent if "Answer B: red bus" in prompt] == [""]


@pytest.mark.parametrize(
    ("reply", "same"),
    [("Yes", True), ("**No.**", False), ('"yes"', True), ("no, they differ", False), ("<think>yes</think> No", False)]
    + [("Maybe", None), ("", None), ("nothing", None), ("yesterday", None), ("They mean the same: yes", None)],
)
def test_a_reply_counts_by_the_word_that_it_begins_with(reply, same):
    assert yes_or_no(reply) is same


@pytest.mark.parametrize("rule", ["metric", "paper"])
def test_a_rule_that_is_never_unsure_has_nothing_to_settle(rule):
    with pytest.raises(ValueError, match="is never unsure"):
        IdentifySettings.model_validate({"rule": rule, "settle": "teacher"})


@pytest.mark.slow
def test_the_bundled_teacher_which_knows_no_such_task_leaves_pairs_unsure(tmp_path):
    student = FakeModel(lambda request, _: "red bus", name="student")
    made = artifact(tmp_path, "verdicts")
    teacher = kept(tmp_path, load_model("embedded:teacher"))
    settings = IdentifySettings(settle="teacher")
    models = TwoModels(kept(tmp_path, student), teacher)
    identify_gaps(made, [pair("bus")], {"toy": task()}, models, settings=settings, progress=mute)
    assert made.manifest["settled"]["neither yes nor no"] == 1
    assert [verdict.verdict for verdict in made.stream(VERDICTS, Verdict)] == ["unsure"]
