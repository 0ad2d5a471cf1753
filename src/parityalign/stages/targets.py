"""The answers that the student learns: the pairs' own, or the teacher's short answers to the same questions.

Evaluation asks with the answer prompt, and a pair's answer was written with its question by another prompt. Where the
judge says that the teacher's own greedy answer agrees with the pair's, either can be learnt (`level.target`).
"""

from collections.abc import Sequence

from parityalign.core import Judged, Pair, VerdictKind
from parityalign.stages.own_pairs import vouched_for
from parityalign.stages.parsing import fault_of_answer, normalise_answer

_TEACHER_RIGHT = (VerdictKind.TEACHER_ONLY, VerdictKind.BOTH)


def with_teacher_answers(pairs: Sequence[Pair], judged: Sequence[Judged]) -> list[Pair]:
    """The pairs with the teacher's answers in place of their own, where these agree.

    A person's answer stays: one that corrected a pair, and that of pairs of one's own. So does the answer of a pair
    about which the teacher was not asked again.

    Args:
        pairs: Those that the student is trained on.
        judged: All pairs with their verdicts.
    """
    said = {pair.pair_id: verdict.teacher_text for pair, verdict in judged if verdict.verdict in _TEACHER_RIGHT}
    return [_answered(pair, said.get(pair.pair_id)) for pair in pairs]


def _answered(pair: Pair, said: str | None) -> Pair:
    if said is None or vouched_for(pair) or fault_of_answer(said):
        return pair
    return pair.model_copy(update={"answer": normalise_answer(said)})
