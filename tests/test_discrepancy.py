"""Discrepancy: the signals of both models are kept by pair, resumed like every artifact; what is missing is counted."""

from collections import Counter

import numpy as np
import pytest

from makers import artifact, content, mute, task
from parityalign.config.schema import DiscrepancySettings
from parityalign.core.records import Judged, Pair, Verdict, VerdictKind
from parityalign.core.signals import ON_RATIONALES, STUDENT, TEACHER, Observation, read_index, read_observations
from parityalign.engines import AnswerStore, CachedModel, TwoModels
from parityalign.models.backends.fake import FakeModel
from parityalign.stages.discrepancy import rationales_of, score_teacher_forced
from parityalign.stages.parsing import RationaleReply, read_rationale

TASKS = {"toy": task()}
SETTINGS = DiscrepancySettings(rationales=True, batch_size=3)


def pair(number: int, answer: str = "tea", question: str = "what?") -> Pair:
    return Pair(
        pair_id=f"p{number}",
        image_id=f"i{number}",
        image=f"{number}.png",
        task="toy",
        question=question,
        answer=answer,
        teacher="t",
    )


class Open(FakeModel):
    """A model whose log-probabilities say how long the text is, and that gives none for texts that hold `dark`."""

    def observe(self, told):
        self.told = [*getattr(self, "told", []), *told]
        return [None if "dark" in text else self._shown(text) for _, text in told]

    def _shown(self, text: str) -> Observation:
        tokens = len(text.split()) + 1
        return Observation(
            ids=np.arange(tokens, dtype=np.int32),
            ends=np.arange(1, tokens + 1, dtype=np.int32),
            logprobs=np.full(tokens, -float(len(text)), dtype=np.float16),
            top_ids=np.zeros((tokens, 1), dtype=np.int32),
            top_logprobs=np.zeros((tokens, 1), dtype=np.float16),
            tail=np.zeros(tokens, dtype=np.float16),
            places=np.full(4, 0.25, dtype=np.float16),
        )


def with_rationale(request, decoding) -> str:
    """Gives a rationale that leads to the answer for every second pair."""
    number = int(request.image.split(".")[0])
    return f"Explanation: the cup says so. Answer: {'tea' if number % 2 else 'milk'}"


def right(pairs):
    return [Verdict(pair_id=one.pair_id, verdict=VerdictKind.BOTH, reason="") for one in pairs]


def scored(folder, pairs, *, student=None, teacher=None, settings=SETTINGS, kinds=None):
    made, store = artifact(folder), AnswerStore(folder / "answers.sqlite")
    models = student or Open(with_rationale), teacher or Open(with_rationale)
    both, judged = (
        TwoModels(
            *(
                CachedModel(who, lambda model=model: model, store)
                for who, model in zip((STUDENT, TEACHER), models, strict=True)
            )
        ),
        [*map(Judged, pairs, kinds or right(pairs))],
    )
    score_teacher_forced(made, judged, TASKS, both, settings=settings, progress=mute)
    return made


def test_every_pair_has_the_signals_of_both_models(tmp_path):
    made = scored(tmp_path, [pair(number, "tea " * (number + 1)) for number in range(7)])
    for who in (TEACHER, STUDENT):
        found = list(read_observations(made.path, read_index(made.path, who)))
        assert [line.pair_id for line, _ in found] == [f"p{number}" for number in range(7)]
        assert [len(seen.ids) for _, seen in found] == [number + 2 for number in range(7)]
        assert all(line.mean_logprob == seen.mean_logprob for line, seen in found)


def test_the_answer_prompt_is_the_one_of_the_task(tmp_path):
    teacher = Open(with_rationale)
    scored(tmp_path, [pair(0)], teacher=teacher, settings=DiscrepancySettings())
    assert [(request.prompt, text) for request, text in teacher.told] == [("what?\nanswer", "tea")]


def test_only_rationales_that_lead_to_the_answer_are_kept_and_scored_by_both(tmp_path):
    student = Open(with_rationale)
    made = scored(tmp_path, [pair(number) for number in range(4)], student=student)
    assert rationales_of(made) == dict.fromkeys(("p1", "p3"), "Explanation: the cup says so. Answer: tea")
    assert [line.pair_id for line in read_index(made.path, STUDENT + ON_RATIONALES)] == ["p1", "p3"]
    told = [text for request, text in student.told if "Explain" in request.prompt]
    assert told == ["Explanation: the cup says so. Answer: tea"] * 2
    assert made.manifest["counts"]["rationale kept"] == 2
    assert made.manifest["counts"]["rationale other_answer"] == 2


def test_without_the_setting_no_rationales_are_written(tmp_path):
    teacher = Open(with_rationale)
    made = scored(tmp_path, [pair(1)], teacher=teacher, settings=DiscrepancySettings())
    assert (teacher.asked, rationales_of(made)) == ([], {})


def test_what_cannot_be_scored_is_counted_with_the_reason(tmp_path):
    pairs = [pair(0), pair(1, "dark"), pair(2, question="what is <image>?")]
    student = Open(with_rationale, special_tokens=frozenset({"<image>"}))
    made = scored(tmp_path, pairs, student=student, teacher=FakeModel(with_rationale))
    assert Counter(line.why_not for line in read_index(made.path, TEACHER)) == {"opaque": 3}
    assert [line.why_not for line in read_index(made.path, STUDENT)] == [None, "not_shown", "special_token"]
    counts = made.manifest["counts"]
    assert (counts["teacher opaque"], counts["student scored"], counts["student with attention"]) == (3, 1, 1)


@pytest.mark.parametrize("calls", range(1, 12))
def test_a_resumed_artifact_is_the_uninterrupted_one(tmp_path, calls):
    pairs = [pair(number, "tea " * (number % 3 + 1)) for number in range(7)]
    whole = content(scored(tmp_path / "whole", pairs).path)

    class Dying(Open):
        left = calls

        def observe(self, told):
            Dying.left -= 1
            if Dying.left == 0:
                raise KeyboardInterrupt
            return super().observe(told)

    try:
        scored(tmp_path / "again", pairs, student=Dying(with_rationale), teacher=Dying(with_rationale))
    except KeyboardInterrupt:
        scored(tmp_path / "again", pairs)
    assert content(tmp_path / "again" / "made") == whole


@pytest.mark.parametrize("first", range(1, 4))
@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_other_batches_after_a_kill_leave_every_pair_with_its_own_observation(tmp_path, first, size):
    pairs = [pair(number, "tea " * (number + 1)) for number in range(7)]

    class Dying(Open):
        left = first

        def observe(self, told):
            Dying.left -= 1
            if Dying.left < 0:
                raise KeyboardInterrupt
            return super().observe(told)

    settings = SETTINGS.model_copy(update={"rationales": False})
    with pytest.raises(KeyboardInterrupt):
        scored(tmp_path, pairs, teacher=Dying(with_rationale), student=Dying(with_rationale), settings=settings)
    made = scored(tmp_path, pairs, settings=settings.model_copy(update={"batch_size": size}))
    for who in (TEACHER, STUDENT):
        lengths = [len(seen.ids) for _, seen in read_observations(made.path, read_index(made.path, who))]
        assert lengths == [number + 2 for number in range(7)]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Explanation: the bar is 40. Answer: 40", RationaleReply("the bar is 40.", "40")),
        ("**Explanation:** The answer: look left.\n**Answer:** Tea.", RationaleReply("The answer: look left.", "Tea")),
        ("the bar is 40. Answer: 40.", RationaleReply("the bar is 40.", "40")),
        ("Answer: 40", None),
        ("Explanation: the bar is 40.", None),
        ("Explanation: see <image>. Answer: 40", None),
        ("Explanation: " + "long " * 200 + "Answer: 40", None),
        ("", None),
    ],
)
def test_a_rationale_is_read_with_its_answer(reply, expected):
    assert read_rationale(reply, {"<image>"}) == expected
