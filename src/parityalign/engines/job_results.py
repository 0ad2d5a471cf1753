"""What came of the questions of one job."""

from collections.abc import Iterable

from parityalign.core import Job, NoReply, Said
from parityalign.engines.job_book import OpenJob
from parityalign.engines.spending import Spent

_SHOWN = 200


class JobResults:
    """Results as they are read, in any order; each question counts once.

    Attributes:
        job: The job.
        unanswered: Keys that have no answer yet.
        problems: Why questions have none, by key, as far as the provider says.
        answered: How many replies there were.
        declined: How many questions the provider declined for what they hold.
        last_declined: Its words.
        lost: Why a file of results could not be read; empty: all were.
    """

    def __init__(self, job: OpenJob, missing: Iterable[str], name: str) -> None:
        """Begins with the questions that the store has no answer to."""
        self.job = job
        self.unanswered = set(missing)
        self.problems: dict[str, NoReply] = {}
        self.answered = self.declined = 0
        self.last_declined = self.lost = ""
        self._name = name
        self._arrived: dict[str, Said] = {}
        self._spent = Spent()

    @property
    def arrived(self) -> int:
        """How many answers were not taken yet."""
        return len(self._arrived)

    def add(self, key: str, outcome: Said | NoReply) -> None:
        """Adds a result; a second one of the same question is none."""
        if key not in self.unanswered:
            return
        if isinstance(outcome, NoReply):
            self.problems[key] = outcome
            return
        self._answer(key, outcome)
        self.answered += 1
        spent = Spent.on_line(outcome, again=self._again(key))
        self._spent += spent.by_another(outcome.model, self._name)

    def close(self, most: int) -> None:
        """Nothing more comes: sets aside what the provider declines, and counts what has no answer.

        Args:
            most: How often a question is asked.
        """
        for key, problem in self.problems.items():
            last = not problem.again or self.job.questions[key] + 1 >= most
            if key in self.unanswered and problem.about_this and last and not problem.amended:
                self._answer(key, Said("", refused=str(problem)))
                self._spent += Spent(refused=1)
                self.declined += 1
                self.last_declined = str(problem)
        of_none = len(self.unanswered) + self.declined
        again = sum(self._again(key) for key in self.unanswered)
        self._spent += Spent(requests=of_none, retries=again)

    def taken(self) -> tuple[dict[str, Said], Spent]:
        """What has arrived since the last time."""
        taken = self._arrived, self._spent
        self._arrived, self._spent = {}, Spent()
        return taken

    @property
    def refusal(self) -> NoReply | None:
        """What the provider says of a question that concerns all of them."""
        found = (self.problems.get(key) for key in self.unanswered)
        return next((each for each in found if each and not each.again and not each.amended), None)

    @property
    def amended(self) -> set[str]:
        """Questions that are sent in another form now."""
        return {key for key in self.unanswered if (problem := self.problems.get(key)) and problem.amended}

    def why(self, seen: Job) -> str:
        """Why questions have no answer, in words."""
        said = next((str(self.problems[key]) for key in self.unanswered if key in self.problems), "")
        return said[:_SHOWN] or self.lost or f"the job was {seen.told} without a result of theirs"

    def in_words(self, seen: Job) -> str:
        """What became of the job, as a line."""
        told = f"{self._name}: job {seen.name} is {seen.told}: {self.answered:,} answers"
        told += f", {self.declined:,} declined" if self.declined else ""
        if self.unanswered:
            told += f"; {len(self.unanswered):,} questions are asked again: {self.why(seen)}"
        return told

    def _answer(self, key: str, said: Said) -> None:
        self._arrived[key] = said
        self.unanswered.discard(key)

    def _again(self, key: str) -> bool:
        return self.job.questions[key] > 0
