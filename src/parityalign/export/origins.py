"""Where a run's pairs and images come from, in words for those who have a file of it and not the run."""

from pathlib import Path

from parityalign.config import TaskData
from parityalign.core import read_manifest
from parityalign.stages import review_in_words

UNCHECKED = "No person has checked the questions and answers."


def checked_in_words(run: Path) -> str:
    """How many of a run's pairs came in with files, and what a person did to them, as sentences."""
    counts = (read_manifest(run / "pairs") or {"counts": {}})["counts"]
    given, asked = counts.get("given", 0), counts.get("asked", 0)
    verdicts = read_manifest(run / "verdicts") or {}
    review, answers = verdicts.get("review", {}), verdicts.get("given_answers", {})
    said = [f"{given:,} of the pairs were not written by the teacher but came in with files."] if given else []
    if asked:
        said.append(f"The questions of {asked:,} pairs came in with files, and the teacher answered them.")
    if answers:
        told = " and ".join(f"{count:,} answers of the {who}" for who, count in answers.items())
        said.append(f"So did {told} to them, by which they were judged.")
    if review.get("corrected") or review.get("dropped"):
        told = review_in_words({**review, "unknown": 0})
        return " ".join([*said, told, "No person is known to have checked the others."])
    return " ".join([*said, UNCHECKED])


def sources_in_words(data: TaskData) -> str:
    """Where a task's images came from, local things by name."""
    return ", ".join(map(source_name, [*data.images, *(given.file for given in data.pairs)]))


def model_name(spec: str) -> str:
    """A model's spec, with a local path reduced to its name."""
    kind, _, location = spec.partition(":")
    return f"{kind}:{_local_name(location)}"


def source_name(spec: str) -> str:
    """An image source's spec, with a local path reduced to its name."""
    return _local_name(spec) if Path(spec).is_absolute() else model_name(spec)


def _local_name(location: str) -> str:
    """A location, with a local path reduced to its name."""
    return Path(location).name if Path(location).is_absolute() else location
