"""Level (the paper's Parity Leveler): selects the training pairs and trains the student on them.

Training on the gaps alone makes a small student forget what it had right, so a share of pairs that it already
has right is mixed in (`replay`); 0 as in the paper. The choice of pairs depends on their identities and the seed,
not on their positions.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from parityalign.config import LevelSettings
from parityalign.core import (
    DISCREPANCY_FOLDER,
    Artifact,
    Judged,
    Leveller,
    Pair,
    Verdict,
    VerdictKind,
    content_id,
    sample,
    signals_digest,
)
from parityalign.stages._stage import Stage, StageRun

NO_GAPS = "no_gaps"
LEVELLED = "levelled"

HAD_RIGHT = (VerdictKind.STUDENT_RIGHT, VerdictKind.BOTH)
"""Verdicts of replayable pairs: the student has them right, and so has the teacher if it was asked."""


def _work(run: StageRun, artifact: Artifact) -> None:
    level_on_gaps(artifact, run.judged, run.leveller(artifact), settings=run.config.level, seed=run.config.seed)


def _matters(run: StageRun) -> dict[str, str]:
    """Of pairs, verdicts and signals only those matter that are trained on or held out."""
    choice = choose_pairs(run.judged, run.config.level, run.config.seed)
    chosen = content_id(*(each.identity for each in choice.training), "", *(each.identity for each in choice.held_out))
    matters = {"pairs": chosen, "verdicts": chosen}
    if run.config.discrepancy.used_in_training(run.config.level):
        pairs = {pair.pair_id for pair in (*choice.training, *choice.held_out)}
        matters[DISCREPANCY_FOLDER] = signals_digest(run.artifact(DISCREPANCY_FOLDER), pairs)
    return matters


STAGE = Stage(
    "level",
    artifact="student",
    of=("pairs", "verdicts", "student model", "answer prompt"),
    also_of=lambda config: (DISCREPANCY_FOLDER,) if config.discrepancy.used_in_training(config.level) else (),
    settings=("level", "seed"),
    parts=_matters,
    derived=lambda run: run.config.discrepancy.in_levelling(run.config.level) | run.config.level.stands_for,
    work=_work,
    help="Train the student on the gaps, with a share of what it had right.",
)


class Choice(NamedTuple):
    """What the student is trained on."""

    training: list[Pair]
    held_out: list[Pair]
    """For early stopping; shares no image with `training`."""
    replayed: int
    """How many of both are replayed."""


class ChoiceCounts(NamedTuple):
    """How many pairs a choice will have, before any pair is there."""

    training: int
    held_out: int
    replayed: int
    """Of both."""
    known_untrained: int
    """Pairs that the student had right and is not trained on."""


def level_on_gaps(
    artifact: Artifact,
    judged: Sequence[Judged],
    leveller: Leveller,
    *,
    settings: LevelSettings,
    seed: int,
) -> None:
    """Trains the student on the pairs of `choose`; if there are none, the student is not trained.

    Args:
        artifact: Gets the levelled student.
        judged: All pairs.
        leveller: Trains and saves.
        settings: What to train on; the leveller has its own settings of how.
        seed: Decides what is drawn.
    """
    if artifact.finished:
        return
    choice = choose_pairs(judged, settings, seed)
    gaps = sum(verdict.verdict == VerdictKind.TEACHER_ONLY for _, verdict in judged)
    counts = {"gaps": gaps, "replay": choice.replayed, **_corrected(choice), **_sizes(choice)}
    if not choice.training:
        artifact.note("Nothing to train on: the student is unchanged.")
        artifact.finish(counts, outcome=NO_GAPS)
        return
    result = leveller(choice.training, choice.held_out, artifact.path)
    by_task = Counter(pair.task for pair in choice.training)
    rows = result.micro_batch_size
    if rows is not None:
        artifact.note(
            f"Memory ran out, so each step of {settings.batch_size} pairs was split into micro-batches of {rows}."
        )
    artifact.finish(counts, outcome=LEVELLED, training_by_task=by_task, result=dict(vars(result)))


def was_levelled(artifact: Artifact) -> bool:
    """Whether the finished artifact holds a student; if not, the student before is also the student after."""
    return bool(artifact.manifest["outcome"] == LEVELLED)


def choose_pairs(judged: Sequence[Judged], settings: LevelSettings, seed: int) -> Choice:
    """Gaps and replay, or the selection of a control, split by image into training and held-out pairs.

    Args:
        judged: All pairs.
        settings: The selection.
        seed: Of the draws.
    """
    # Dropped pairs would break training, so no control may use them.
    usable = [pair for pair, verdict in judged if verdict.verdict != VerdictKind.DROPPED]
    gaps = [pair for pair, verdict in judged if _is_learnt(pair, verdict)]
    had_right = [pair for pair, verdict in judged if verdict.verdict in HAD_RIGHT]
    replay = sample(had_right, _replayed(len(gaps), settings), f"replay {seed}", _pair_id)
    chosen = {
        "gaps": [*gaps, *replay],
        "all": usable,
        "random": sample(usable, len(gaps) + len(replay), f"random {seed}", _pair_id),
    }[settings.select]
    replayed = len(replay) if settings.select == "gaps" else 0
    return split_by_image(chosen, settings.held_out, seed)._replace(replayed=replayed)


def _is_learnt(pair: Pair, verdict: Verdict) -> bool:
    """Whether a pair is a gap, or the student lacks an answer that a person vouches for, whatever the teacher says."""
    vouched = pair.written is not None and verdict.verdict in (VerdictKind.NEITHER, VerdictKind.UNSURE)
    return vouched or verdict.verdict == VerdictKind.TEACHER_ONLY


def choice_counts(pairs: int, gaps: int, settings: LevelSettings) -> ChoiceCounts:
    """About what `choose_pairs` will take of so many pairs, if the student has all right that are no gaps."""
    replay = min(_replayed(gaps, settings), pairs - gaps)
    taken = pairs if settings.select == "all" else gaps + replay
    held_out = round(taken * settings.held_out)
    training, right = taken - held_out, pairs - gaps
    if settings.select == "gaps":
        return ChoiceCounts(training, held_out, replay, right - round(replay * (1 - settings.held_out)))
    return ChoiceCounts(training, held_out, 0, round(right * (1 - training / max(1, pairs))))


def split_by_image(pairs: Sequence[Pair], share: float, seed: int) -> Choice:
    """Training and held-out pairs, with `replayed` 0; at least one image is held out if there are two.

    Args:
        pairs: What to train on.
        share: Of the images, held out.
        seed: Of the draw.
    """
    images = sorted({pair.image_id for pair in pairs})
    wanted = min(max(1, round(share * len(images))), len(images) - 1)
    held_out = set(sample(images, wanted, f"held out {seed}", str))
    training = [pair for pair in pairs if pair.image_id not in held_out]
    return Choice(training, [pair for pair in pairs if pair.image_id in held_out], replayed=0)


def _replayed(gaps: int, settings: LevelSettings) -> int:
    """How many pairs are replayed beside so many gaps, if there are enough."""
    return round(gaps * settings.replay / (1 - settings.replay))


def _pair_id(pair: Pair) -> str:
    return pair.pair_id


def _corrected(choice: Choice) -> dict[str, int]:
    """How many of both have a person's answer, where some have."""
    count = sum(pair.written is not None for pair in (*choice.training, *choice.held_out))
    return {"corrected": count} if count else {}


def _sizes(choice: Choice) -> dict[str, int]:
    return {"training": len(choice.training), "held_out": len(choice.held_out)}
