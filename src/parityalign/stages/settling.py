"""Settling: where words do not tell whether an answer is right, the teacher is asked if the two answers mean the same.

One short question without a picture for each such pair and model. A reply that is neither yes nor no leaves the pair
unsure, and is counted.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from parityalign.config import IdentifySettings
from parityalign.core import Answer, Artifact, Decoding, Pair, Progress, Record, Score
from parityalign.engines import Asked, CachedModel
from parityalign.stages._comparing import LONGEST
from parityalign.stages._outcomes import Outcome
from parityalign.stages.judging import Judge
from parityalign.stages.parsing import normalise_answer, yes_or_no

SETTLED = "settled.jsonl"
PROMPT = (
    "Question: {question}\nAnswer A: {answer}\nAnswer B: {text}\n"
    "Do the two answers to the question mean the same? Reply with yes or no."
)
SETTLING_PROMPT_TOKENS = 80
"""About so many tokens has such a question, for plans."""
SETTLING_REPLY_TOKENS = 8
"""Most tokens of a reply."""


class Settled(Record):
    """What the teacher said of one answer that words left open."""

    pair_id: str
    who: str
    """Whose answer it is: `student` or `teacher`."""
    text: str
    """The answer."""
    reply: str
    """What the teacher said; empty if it was not asked."""
    same: bool | None
    """Whether it means the same as the pair's answer; None: the reply is neither yes nor no."""


class Settling:
    """Asks about answers that the judges of a run's tasks are unsure of, if the settings say so.

    Attributes:
        settled: What was asked so far.
    """

    def __init__(
        self, model: CachedModel, judges: Mapping[str, Judge], settings: IdentifySettings, progress: Progress
    ) -> None:
        self.settled: list[Settled] = []
        self._same: dict[tuple[str, str, str], bool] = {}
        self._model, self._judges, self._settings, self._progress = model, judges, settings, progress

    def judges_after(self, who: str, pairs: Sequence[Pair], answers: Mapping[str, Answer]) -> Mapping[str, Judge]:
        """The judges, by task, once what they are unsure of in these answers is settled.

        Args:
            who: Whose answers they are.
            pairs: The pairs, by whose answers they are judged.
            answers: By pair id.
        """
        if self._settings.settle is None:
            return self._judges
        unsure = [pair for pair in pairs if self._is_unsure(pair, answers)]
        settled = self._ask(who, unsure, answers)
        self.settled += settled
        self._same |= {
            (each.text, pair.answer, pair.question): each.same
            for pair, each in zip(unsure, settled, strict=True)
            if each.same is not None
        }
        return {task: _knowing(judge, self._same) for task, judge in self._judges.items()}

    def write(self, artifact: Artifact) -> dict[str, object]:
        """Writes the file, if anything was asked.

        Returns:
            Counts for the manifest.
        """
        if self._settings.settle is None:
            return {}
        artifact.stream(SETTLED, Settled).write(self.settled)
        counts = Counter(_NAMES[each.same] for each in self.settled)
        if counts[_NAMES[None]]:
            artifact.note(
                f"The teacher said neither yes nor no of {counts[_NAMES[None]]:,} of {len(self.settled):,} answers "
                "that words left open; these pairs stay unsure."
            )
        return {"settled": {name: counts[name] for name in _NAMES.values()}}

    def _is_unsure(self, pair: Pair, answers: Mapping[str, Answer]) -> bool:
        answer = answers.get(pair.pair_id)
        if answer is None or not answer.text or not normalise_answer(pair.answer):
            return False
        return self._judges[pair.task].outcome(answer.text, pair.answer, pair.question) is Outcome.UNSURE

    def _ask(self, who: str, pairs: Sequence[Pair], answers: Mapping[str, Answer]) -> list[Settled]:
        replies = self._model.answer(
            [_asked(pair, answers[pair.pair_id].text) for pair in pairs],
            decoding=Decoding(SETTLING_REPLY_TOKENS),
            batch_size=self._settings.batch_size,
            on_progress=lambda done, total: self._progress(f"identify settling {who}", done, total),
        )
        return [
            Settled(
                pair_id=pair.pair_id,
                who=who,
                text=answers[pair.pair_id].text,
                reply=replies[pair.pair_id].text,
                same=yes_or_no(replies[pair.pair_id].text),
            )
            for pair in pairs
        ]


_NAMES = {True: "the same", False: "not the same", None: "neither yes nor no"}


def _knowing(judge: Judge, same: Mapping[tuple[str, str, str], bool]) -> Judge:
    """The judge, with what was said of answers that it is unsure of."""

    def score(text: str, answer: str, question: str) -> Score:
        by_words = judge.score(text, answer, question)
        settled = same.get((text, answer, question))
        if settled is None:
            return by_words
        return Score(float(settled), by_words.compared, f"the teacher says {_NAMES[settled]}")

    return replace(judge, score=score)


def _asked(pair: Pair, text: str) -> Asked:
    said = {"question": pair.question, "answer": pair.answer[:LONGEST], "text": " ".join(text[:LONGEST].split())}
    return Asked(pair.pair_id, "", PROMPT.format(**said), "\n".join(said.values()))
