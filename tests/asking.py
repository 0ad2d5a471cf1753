"""Models that know numbers: both are asked `What is N?`, and what is asked of them is counted."""

import re
from pathlib import Path

from parityalign.core import LevelResult
from parityalign.models.backends.fake import FakeModel


def word(number: int) -> str:
    return f"word{'abcdefghij'[number % 10]}{'klmnopqrst'[number // 10 % 10]}"


class Asked:
    """What each model was asked, and what the student was trained on.

    The teacher knows what 7 does not divide, the student what is even.
    """

    def __init__(self, special_tokens=frozenset()):
        self.prompts: dict[str, list[str]] = {}
        self.trained: list[tuple[str, str]] = []
        self.loaded: list[str] = []
        self._special_tokens = special_tokens

    def load(self, spec, loading=None):
        trained = Path(spec.partition(":")[2], "after.json").is_file()
        who = "after" if trained else Path(spec).stem
        self.loaded.append(who)

        def answer(request, _decoding):
            self.prompts.setdefault(who, []).append(request.prompt)
            if "Write one question" in request.prompt:
                number = request.seed % 90
                return f"Question: What is {number}? Answer: {word(number)}"
            number = int(re.search(r"What is (\d+)", request.prompt)[1])
            knows = {"teacher": number % 7, "student": number % 2 == 0, "after": True}[who]
            return word(number) if knows else "nothing"

        return FakeModel(answer, name=who, special_tokens=self._special_tokens)

    def taken(self):
        """How many questions teacher and student got since the last time."""
        counts = {who: len(prompts) for who, prompts in self.prompts.items() if who != "after"}
        self.prompts.clear()
        return counts

    def leveller(self, run, level, seed, *_):
        def learn(pairs, held_out, out):
            self.trained = [(pair.question, pair.answer) for pair in (*pairs, *held_out)]
            (out / "after.json").write_text(repr(self.trained))
            return LevelResult(1, 1, 2.0, 1.0)

        return learn
