"""Level (the paper's Parity Leveler): selects the training pairs, trains the student, and takes it if it is better.

Training on the gaps alone makes a small student forget what it had right, so a share of pairs that it already
has right is mixed in (`replay`); 0 as in the paper. The choice of pairs depends on their identities and the seed,
not on their positions. Images are held out before anything is chosen, and their pairs accept or refuse what came of it.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from parityalign.config import LevelSettings
from parityalign.core import (
    BEGUN,
    DISCREPANCY_FOLDER,
    Artifact,
    HeldOutPair,
    Judged,
    Leveller,
    LevelResult,
    Pair,
    Verdict,
    VerdictKind,
    content_id,
    sample,
    signals_digest,
)
from parityalign.engines import CachedModel
from parityalign.stages._stage import Stage, StageRun
from parityalign.stages.acceptance import HAD_RIGHT, HELD_OUT, hold_out, is_better, judged_after
from parityalign.stages.identify import answers_to
from parityalign.stages.selection import selection_of
from parityalign.stages.targets import with_teacher_answers

NO_GAPS = "no_gaps"
NOT_BETTER = "not_better"
LEVELLED = "levelled"

TRAINABLE = (*HAD_RIGHT, VerdictKind.TEACHER_ONLY, VerdictKind.NEITHER, VerdictKind.STUDENT_ONLY)
"""Verdicts of pairs that may be trained on: what was dropped would break training, and what is unsure is left out."""

Check = Callable[[Artifact, Sequence[Judged]], list[HeldOutPair]]
"""(the artifact with the trained student, the held-out pairs) -> how the student does on them."""


def _work(run: StageRun, artifact: Artifact) -> None:
    config = run.config
    leveller, check = run.leveller(artifact), partial(_check, run)
    level_on_gaps(artifact, run.judged, leveller, check, settings=config.level, seed=config.seed)


def _check(run: StageRun, artifact: Artifact, held: Sequence[Judged]) -> list[HeldOutPair]:
    """Asks both students the held-out pairs as identify does; the one before has mostly answered them there."""
    settings = run.config.identify

    def said(model: CachedModel, who: str) -> dict[str, str]:
        answers = answers_to(
            model,
            [pair for pair, _ in held],
            run.tasks,
            settings=settings,
            on_progress=lambda done, total: run.progress(f"level held-out pairs {who}", done, total),
        )
        return {pair_id: answer.text for pair_id, answer in answers.items()}

    before, after = said(run.student, "before"), said(run.trained(artifact), "after")
    return judged_after(held, before, after, run.tasks, settings)


def _matters(run: StageRun) -> dict[str, str]:
    """Of pairs, verdicts and signals only those matter that are trained on or held out."""
    choice = choose_pairs(run.judged, run.config.level, run.config.seed)
    held = (f"{pair.identity} {verdict.verdict in HAD_RIGHT}" for pair, verdict in choice.held_out)
    training = _learnt(choice, run.judged, run.config.level)
    chosen = content_id(*(each.identity for each in choice.training), "", *held)
    if training != choice.training:
        chosen = content_id(chosen, *(each.answer for each in training))
    matters = {"pairs": chosen, "verdicts": chosen}
    if run.config.discrepancy.used_in_training(run.config.level):
        pairs = {pair.pair_id for pair in choice.pairs}
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
    """What the student is trained on, and what judges it."""

    training: list[Pair]
    held_out: list[Judged]
    """For early stopping and acceptance; shares no image with `training`."""
    replayed: int
    """How many of `training` are replayed."""
    why: str = ""
    """In a sentence, if the pool decided what is trained on."""

    @property
    def pairs(self) -> list[Pair]:
        """Both together."""
        return [*self.training, *(pair for pair, _ in self.held_out)]


class ChoiceCounts(NamedTuple):
    """How many pairs a choice will have, before any pair is there."""

    training: int
    held_out: int
    replayed: int
    """How many of `training` are replay."""
    known_untrained: int
    """Pairs that the student had right and is not trained on."""


def level_on_gaps(
    artifact: Artifact,
    judged: Sequence[Judged],
    leveller: Leveller,
    check: Check,
    *,
    settings: LevelSettings,
    seed: int,
) -> None:
    """Trains the student on the pairs of `choose_pairs`, and takes it if the held-out pairs say that it is better.

    Args:
        artifact: Gets the levelled student; of one that is not better only how it did on the held-out pairs.
        judged: All pairs.
        leveller: Trains and saves.
        check: Asks the trained student the held-out pairs.
        settings: What to train on; the leveller has its own settings of how.
        seed: Decides what is drawn.
    """
    if artifact.finished:
        return
    choice = choose_pairs(judged, settings, seed)
    gaps = sum(verdict.verdict == VerdictKind.TEACHER_ONLY for _, verdict in judged)
    sizes = {**_corrected(choice), **_sizes(choice)}
    counts = {"pairs": len(judged), "gaps": gaps, "replay": choice.replayed, **sizes}
    if not choice.training:
        artifact.note("Nothing to train on: the student is unchanged.")
        artifact.finish(counts, outcome=NO_GAPS)
        return
    if choice.why:
        artifact.note(f"By auto: {choice.why}.")
    (artifact.path / HELD_OUT).unlink(missing_ok=True)  # left by a kill, it would change the student's identity
    training = _learnt(choice, judged, settings)
    if settings.target:
        changed = sum(one != other for one, other in zip(training, choice.training, strict=True))
        counts["with the teacher's answer"] = changed
    result = leveller(training, [pair for pair, _ in choice.held_out], artifact.path)
    identity = artifact.digest  # of the student alone
    held = check(artifact, choice.held_out) if result.best_step else _unchanged(choice.held_out)
    better = is_better(result, held)
    if not better:
        _clear(artifact)
    artifact.stream(HELD_OUT, HeldOutPair).write(held)
    _note(artifact, result, held, better=better, batch_size=settings.batch_size)
    artifact.finish(
        counts,
        outcome=LEVELLED if better else NOT_BETTER,
        keep=better,
        identity=identity if better else content_id(identity, NOT_BETTER),
        training_by_task=Counter(pair.task for pair in choice.training),
        result=dict(vars(result)),
    )


def _unchanged(held: Sequence[Judged]) -> list[HeldOutPair]:
    """The held-out pairs where no checkpoint was better by the loss: the student is the one before."""
    return [
        HeldOutPair(
            pair_id=pair.pair_id,
            image_id=pair.image_id,
            task=pair.task,
            right_before=verdict.verdict in HAD_RIGHT,
            right_after=verdict.verdict in HAD_RIGHT,
            text=verdict.student_text or "",
        )
        for pair, verdict in held
    ]


def _clear(artifact: Artifact) -> None:
    """Deletes a student that is not taken; it could be made again."""
    for path in artifact.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != BEGUN:
            path.unlink()


def _note(
    artifact: Artifact, result: LevelResult, held: Sequence[HeldOutPair], *, better: bool, batch_size: int
) -> None:
    tokens = result.micro_batch_tokens
    if tokens is not None:
        artifact.note(
            f"Memory ran out, so steps of {batch_size} pairs were split into micro-batches, at times of no more than "
            f"{tokens:,} tokens."
        )
    if result.interpolation < 1:
        artifact.note(
            f"The loss on held-out pairs was lowest with weights {result.interpolation:.0%} of the way from the "
            "student's to the trained ones, so these were judged."
        )
    before, after = ([each.right_before for each in held], [each.right_after for each in held])
    told = f"Of {len(held):,} pairs on held-out images the student had {sum(before):,} right before"
    losses = f"the loss on them went from {result.held_out_loss_before:.3g} to {result.held_out_loss_after:.3g}"
    if before == after:
        told += f" and the very same after, and {losses}"
    else:
        told += f" and {sum(after):,} after"
    unsure = "that may be chance, so" if sum(after) > sum(before) else "it is not better, so"
    outcome = "it was taken" if better else f"{unsure} the student was left as it was"
    artifact.note(f"{told}: {outcome}.")


def was_levelled(artifact: Artifact) -> bool:
    """Whether the finished artifact holds a student; if not, the student before is also the student after."""
    return bool(artifact.manifest["outcome"] == LEVELLED)


def choose_pairs(judged: Sequence[Judged], settings: LevelSettings, seed: int) -> Choice:
    """Holds images out, and chooses gaps and replay, or the selection of a control, from the others.

    Args:
        judged: All pairs.
        settings: The selection.
        seed: Of the draws.
    """
    held = hold_out(judged, settings, seed)
    pool = [each for each in judged if each.pair.image_id not in held.images and _is_trainable(each)]
    gaps = [pair for pair, verdict in pool if _is_learnt(pair, verdict)]
    had_right = [pair for pair, verdict in pool if verdict.verdict in HAD_RIGHT]
    usable = [pair for pair, _ in pool]
    select, share, why = selection_of(settings, gaps=len(gaps), had_right=len(had_right), usable=len(usable))
    replay = _replay(gaps, had_right, share, seed)
    chosen = {
        "gaps": [*gaps, *replay],
        "all": usable,
        "random": sample(usable, len(gaps) + len(replay), f"random {seed}", _pair_id),
    }[select]
    return Choice(chosen, held.pairs, len(replay) if select == "gaps" else 0, why)


def _learnt(choice: Choice, judged: Sequence[Judged], settings: LevelSettings) -> list[Pair]:
    """The training pairs with the answers that are learnt."""
    return with_teacher_answers(choice.training, judged) if settings.target == "teacher" else choice.training


def _is_trainable(each: Judged) -> bool:
    """Whether a pair may be trained on; of a corrected one a person is sure, whatever the models say."""
    vouched = each.pair.written is not None and each.verdict.verdict != VerdictKind.DROPPED
    return vouched or each.verdict.verdict in TRAINABLE


def _is_learnt(pair: Pair, verdict: Verdict) -> bool:
    """Whether a pair is a gap, or the student lacks an answer that a person vouches for, whatever the teacher says."""
    vouched = pair.written is not None and verdict.verdict in (VerdictKind.NEITHER, VerdictKind.UNSURE)
    return vouched or verdict.verdict == VerdictKind.TEACHER_ONLY


def choice_counts(pairs: int, gaps: int, settings: LevelSettings) -> ChoiceCounts:
    """About what `choose_pairs` will take of so many pairs, if the student has all right that are no gaps."""
    failed, right = (count - round(count * settings.held_out) for count in (gaps, pairs - gaps))
    pool, held = failed + right, pairs - failed - right
    select, share, _ = selection_of(settings, gaps=failed, had_right=right, usable=pool)
    replay = min(_replayed(failed, share), right)
    training = pool if select == "all" else failed + replay
    replayed = replay if select == "gaps" else 0
    trained_known = replayed if select == "gaps" else round(right * training / max(1, pool))
    return ChoiceCounts(training, min(held, settings.held_out_pairs), replayed, pairs - gaps - trained_known)


def _replay(gaps: Sequence[Pair], had_right: Sequence[Pair], share: float, seed: int) -> list[Pair]:
    """Pairs that the student had right, of each task in proportion to its gaps as far as there are enough."""
    wanted = _replayed(len(gaps), share)
    gaps_of, chosen = Counter(pair.task for pair in gaps), set[str]()
    for task, count in gaps_of.items():
        of_task = [pair for pair in had_right if pair.task == task]
        taken = sample(of_task, round(wanted * count / len(gaps)), f"replay {seed}", _pair_id)
        chosen.update(pair.pair_id for pair in taken)
    left = [pair for pair in had_right if pair.pair_id not in chosen]
    chosen.update(pair.pair_id for pair in sample(left, wanted - len(chosen), f"replay {seed}", _pair_id))
    return [pair for pair in had_right if pair.pair_id in chosen]


def _replayed(gaps: int, share: float) -> int:
    """How many pairs are replayed beside so many gaps, if there are enough."""
    return round(gaps * share / (1 - share))


def _pair_id(pair: Pair) -> str:
    return pair.pair_id


def _corrected(choice: Choice) -> dict[str, int]:
    """How many of both have a person's answer, where some have."""
    count = sum(pair.written is not None for pair in choice.pairs)
    return {"corrected": count} if count else {}


def _sizes(choice: Choice) -> dict[str, int]:
    return {"training": len(choice.training), "held_out": len(choice.held_out)}
