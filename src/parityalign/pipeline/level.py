"""Levelling as a run needs it: on what evidence, with which objective, in how many rounds.

Like `pipeline.py` this module joins rooms.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from parityalign import training
from parityalign.config import LevelSettings, split_model
from parityalign.core import Answer, Artifact, Leveller, LevelResult, Pair, UserError, Verdict, writing
from parityalign.pipeline.objective import EVIDENCE, note_left_out, objective_of
from parityalign.pipeline.run import Run
from parityalign.stages import (
    LEVELLED,
    Both,
    as_asked,
    choose_pairs,
    identify_gaps,
    level_on_gaps,
    observe_models,
    remembering,
    verdicts_of,
    was_levelled,
)
from parityalign.stages import TEACHER_ANSWERS as TEACHER_ANSWERS


def gather_evidence(run: Run, pairs: Sequence[Pair], verdicts: Sequence[Verdict]) -> list[str]:
    """The stage `observe`: what both models show of every pair that was not dropped, and how they differ.

    Returns:
        The name of the artifact, if the objective or the weights of pairs need it.
    """
    if not run.config.wants_evidence:
        return []
    of = ["pairs", "verdicts", "teacher model", "student model", "answer prompt", "explain prompt"]
    plan, name = ["evidence.max_new_tokens"], "evidence.explain"
    # Explanations that are there stay, even if no term asks for them any more.
    explain = run.config.wants_explanations or run.holds(EVIDENCE, of=of, settings=plan, chosen={name: True})
    with run.stage("observe", EVIDENCE, of=of, settings=plan, chosen={name: explain}) as made:
        models = Both(run.load_student, run.load_teacher)
        settings = run.config.evidence.model_copy(update={"explain": explain})
        observe_models(made, pairs, verdicts, run.tasks, models, settings=settings, progress=run.progress)
    return [EVIDENCE] if run.config.evidence.teaches(run.config.level) else []


class Plan(NamedTuple):
    """How a student is levelled."""

    settings: LevelSettings
    seed: int
    rounds: str = "rounds"
    """Folder of the artifacts of several rounds, below the run folder."""

    @property
    def chosen(self) -> dict[str, object]:
        """The settings under their names in a configuration."""
        values = self.settings.model_dump(mode="json").items()
        chosen = {f"level.{name}": value for name, value in values}
        return {**chosen, **self.settings.stands_for, "seed": self.seed}

    def verdicts(self, number: int) -> str:
        """The artifact of the verdicts that a round trains on."""
        return "verdicts" if number == 1 else f"{self.rounds}/{number}/verdicts"

    def student(self, number: int) -> str:
        """The artifact of the student that a round comes to."""
        return f"{self.rounds}/{number}/student"


def level_student(
    run: Run, artifact: Artifact, pairs: Sequence[Pair], verdicts: Sequence[Verdict], plan: Plan | None = None
) -> None:
    """The stage `level`, in as many rounds as `level.rounds` says.

    Args:
        run: The run.
        artifact: Where the levelled student goes.
        pairs: All pairs.
        verdicts: The verdict on each, in the same order.
        plan: How. None: as the run's configuration says.
    """
    plan = plan or Plan(run.config.level, run.config.seed)
    if not artifact.finished:
        note_left_out(run, artifact, plan.settings)
    if not artifact.finished and plan.settings.rounds > 1:
        _in_rounds(run, artifact, pairs, verdicts, plan)
    elif not artifact.finished:
        train = leveller(run, plan.settings, seed=plan.seed)
        level_on_gaps(artifact, pairs, verdicts, train, settings=plan.settings, seed=plan.seed)


def _in_rounds(run: Run, artifact: Artifact, pairs: Sequence[Pair], verdicts: Sequence[Verdict], plan: Plan) -> None:
    rounds: list[Artifact] = []
    answers = run.artifact("verdicts")
    while len(rounds) < plan.settings.rounds and (not rounds or _gained(rounds[-1])):
        if rounds:
            answers = _identified_again(run, plan, len(rounds) + 1, pairs, rounds[-1], answers)
            verdicts = verdicts_of(answers)
        rounds.append(_round(run, plan, len(rounds) + 1, pairs, verdicts, rounds))
    best = next((made for made in reversed(rounds) if _gained(made)), rounds[0])
    _keep(artifact, best, rounds.index(best) + 1, [made.manifest for made in rounds])


def _round(
    run: Run, plan: Plan, number: int, pairs: Sequence[Pair], verdicts: Sequence[Verdict], done: Sequence[Artifact]
) -> Artifact:
    """Levels the student of the round before on the pairs that are still gaps."""
    student = plan.student(number - 1) if done else "student model"
    evidence = [EVIDENCE] if run.config.evidence.teaches(plan.settings) else []
    of = list(dict.fromkeys(["pairs", "verdicts", plan.verdicts(number), student, "answer prompt", *evidence]))
    step = f"level, round {number}"
    with run.stage("level", plan.student(number), of=of, settings=evidence, chosen=plan.chosen, called=step) as made:
        last = done[-1].path if done else None
        train = leveller(run, plan.settings, step, student=last, seed=plan.seed)
        # All rounds are judged by the same pairs: what is left of the gaps is largely what the teacher has wrong, and
        # by such pairs a student that forgets the rest looks better and better.
        first = choose_pairs(pairs, verdicts_of(run.artifact("verdicts")), plan.settings, plan.seed) if done else None
        held_out = first.held_out if first else None
        level_on_gaps(made, pairs, verdicts, train, settings=plan.settings, seed=plan.seed, held_out=held_out)
    return made


def _identified_again(
    run: Run, plan: Plan, number: int, pairs: Sequence[Pair], student: Artifact, before: Artifact
) -> Artifact:
    """Judges the pairs anew for the student of the last round; the teacher is asked only what it was not yet."""
    said = before.stream(TEACHER_ANSWERS, Answer)
    known = {answer.item_id: answer.text for answer in said if answer.not_asked is None}
    asked = (as_asked(pair, run.tasks[pair.task]) for pair in pairs)
    replies = {(each.image, each.prompt): known[each.item_id] for each in asked if each.item_id in known}
    of = ["pairs", plan.student(number - 1), plan.verdicts(number - 1), "teacher model", "answer prompt", "metric"]
    step = f"level, round {number}, identify"
    with run.stage("level", plan.verdicts(number), of=of, settings=["identify"], called=step) as made:
        identify_gaps(
            made,
            pairs,
            run.tasks,
            lambda: run.load_own(student.path),
            remembering(replies, run.config.teacher, run.load_teacher),
            settings=run.config.identify,
            progress=run.progress,
        )
    return made


def _keep(artifact: Artifact, best: Artifact, number: int, rounds: Sequence[Mapping[str, Any]]) -> None:
    """Makes the student of the last round that gained anything the student of the run, and notes all rounds."""
    manifest = best.manifest
    facts = {key: manifest[key] for key in ("training_by_task", "result", "note") if key in manifest}
    if manifest["outcome"] == LEVELLED:
        with writing(artifact.path):
            for name in manifest["files"]:
                (artifact.path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(best.path / name, artifact.path / name)
        taken = (f"{each['counts']['training']:,} pairs and {_steps(each):,} steps" for each in rounds)
        note = f"Rounds: {'; '.join(taken)}. This is the student of round {number}."
        facts["note"] = f"{note} {facts['note']}" if "note" in facts else note
    told = [{key: each[key] for key in ("counts", "result", "outcome") if key in each} for each in rounds]
    artifact.finish(manifest["counts"], outcome=manifest["outcome"], **facts, rounds=told)


def _steps(manifest: Mapping[str, Any]) -> int:
    return int(manifest.get("result", {}).get("steps", 0))


def _gained(made: Artifact) -> bool:
    """Whether a round made the student better on the held-out pairs."""
    return was_levelled(made) and made.manifest["result"]["best_step"] > 0


def leveller(
    run: Run, settings: LevelSettings, step: str = "level", *, student: Path | None = None, seed: int | None = None
) -> Leveller:
    """What trains a student; only when it is called does training's torch come in.

    Args:
        run: The run.
        settings: How it is trained.
        step: What its progress is called.
        student: The folder of a student that this run has levelled before. None: the student that came in.
        seed: Decides the order of the pairs. None: the run's.
    """

    def level(pairs: Sequence[Pair], held_out: Sequence[Pair], out: Path) -> LevelResult:
        kind, location = split_model(run.config.student)
        if kind != "hf":
            raise UserError(f"the student {run.config.student} cannot be trained: only hf and embedded models can")
        make: Callable[..., Leveller] = training.make_leveller
        loading = run.config.loading.student
        return make(
            str(student or location),
            {task.name: task.answer_prompt for task in run.tasks.values()},
            settings=settings,
            objective=objective_of(run, settings, [*pairs, *held_out]),
            seed=run.config.seed if seed is None else seed,
            progress=lambda _, done, total: run.progress(step, done, total),
            loading=loading.model_copy(update={"revision": None, "commit": None}) if student else loading,
        )(pairs, held_out, out)

    return level
