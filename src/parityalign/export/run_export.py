"""Exports a run folder in a format of `export/formats/`: nothing in the run is made or changed.

runs/NAME/exports/llava/        data.json, and a manifest.json with the digests of its pairs and verdicts
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from parityalign.config import RunConfig
from parityalign.core import (
    BEGUN,
    CONFIG,
    MANIFEST,
    Answer,
    Artifact,
    ExportedPair,
    ExportFormat,
    Origin,
    Pair,
    Question,
    Record,
    Scored,
    Task,
    UserError,
    Verdict,
    VerdictKind,
    content_id,
    described,
    folder_files,
    input_digest,
    load_part,
    put_in_place,
    read_manifest,
    stale_inputs,
)
from parityalign.data import questions_in
from parityalign.export.forms import EXPORTS, part_of, refuse_idle_options
from parityalign.export.origins import checked_in_words, model_name, sources_in_words
from parityalign.export.pictures import copy_picture, picture_name
from parityalign.report import read_records
from parityalign.stages import (
    AFTER_FILE,
    BEFORE_FILE,
    TEACHER_FILE,
    VERDICTS,
    command_of,
    reviewed_pairs,
    stages_of,
    without_tags,
)
from parityalign.tasks import settled, task_of

R = TypeVar("R", bound=Record)


class Exported(NamedTuple):
    """The result of an export."""

    path: Path
    counts: Mapping[str, int]
    made: bool
    """Whether it was written now; False: it was up to date."""


class RunExport:
    """The run as an `Exportable` (core/interfaces.py)."""

    def __init__(self, config: RunConfig, *, everything: bool, prompted: bool, in_place: bool) -> None:
        """Opens a run folder for reading.

        Args:
            config: The run's configuration; its `run` names the folder.
            everything: All pairs with their verdicts, not only the gaps.
            prompted: Questions inside the task's answer prompt, as the models saw them.
            in_place: Pictures stay where they lie, and rows name them by their full paths.
        """
        self.everything = everything
        self.prompted = prompted
        self.in_place = in_place
        self._copied: set[Path] = set()
        self._config = config = settled(config)
        self._manifests: dict[str, dict[str, Any]] = {}
        self._tasks = {name: task_of(name, data) for name, data in config.tasks.items()}
        self._stages = stages_of(config)

    def origin(self) -> Origin:
        """Where the pairs come from, by the manifests."""
        pairs, verdicts = self._manifest("pairs"), self._manifest("verdicts")
        tasks = self._tasks
        return Origin(
            teacher=model_name(self._config.teacher),
            student=model_name(self._config.student),
            seed=pairs["settings"]["seed"],
            judged_by=_rule_in_words(verdicts["settings"], {task.metric.name for task in tasks.values()}),
            exported="all" if self.everything else "gaps",
            sources={name: sources_in_words(data) for name, data in self._config.tasks.items()},
            annotate_prompts={
                name: _asked_for(task) for name, task in tasks.items() if self._config.tasks[name].images
            },
            answer_prompts={name: task.answer_prompt for name, task in tasks.items()},
            pairs=verdicts["counts"]["pairs"],
            verdicts={
                name: {kind.value: counts[kind] for kind in VerdictKind if kind in counts}
                for name, counts in verdicts["by_task"].items()
            },
            checked=checked_in_words(self._config.run),
        )

    def judged(self) -> Iterator[ExportedPair]:
        """The pairs to export with their verdicts.

        Raises:
            UserError: A line is broken, or an image is missing.
        """
        verdicts = self._read("verdicts", VERDICTS, Verdict)
        for pair, verdict in zip(reviewed_pairs(self._config.run), verdicts, strict=True):
            if pair.pair_id != verdict.pair_id:
                raise self._unusable("verdicts", f"do not follow its pairs, at pair {pair.pair_id}")
            if self.everything or verdict.verdict == VerdictKind.TEACHER_ONLY:
                yield self._judged(pair, verdict)

    def picture(self, pair: Pair, folder: Path) -> str:
        """How a row names its pair's picture: a path in `folder`, where it is copied once, or where it lies.

        Raises:
            UserError: It is another picture now.
            WorkFailed: It cannot be read, or the disk refused.
        """
        if self.in_place:
            return pair.image
        name = picture_name(pair)
        if folder / name not in self._copied:
            copy_picture(pair, folder)
            self._copied.add(folder / name)
        return name

    def scored(self) -> Iterator[Scored]:
        """Every model's answers to the test splits, with their scores.

        Raises:
            UserError: A line is broken, or a question is missing from its test split.
        """
        asked = {f"{task}:{each.question_id}": (task, place, each) for task, place, each in self._questions()}
        for file in (BEFORE_FILE, AFTER_FILE, TEACHER_FILE):
            for answer in self._read("answers", file, Answer):
                if answer.item_id not in asked:
                    raise self._unusable("answers", f"include one to {answer.item_id}, which is not in its test split")
                task, place, question = asked[answer.item_id]
                rule = self._tasks[task]
                score = rule.metric.on_question(answer.text, question.answers, question.exact)
                yield Scored(task, Path(file).stem, question, answer.text, rule.metric.name, score, place)

    def refuse_unknown(self, part: str, of: tuple[str, ...]) -> None:
        """Refuses a format that is made of artifacts which the run will never have.

        Raises:
            UserError: Says which.
        """
        made = [stage.artifact for stage in self._stages]
        if unknown := [name for name in of if name not in made]:
            raise UserError(
                f"{described(EXPORTS, part)} is made of {unknown[0]!r}, which no stage of this run makes. "
                f"It makes {', '.join(made)}."
            )

    def plan(self, form: str, of: tuple[str, ...]) -> dict[str, Any]:
        """The inputs of an export in this format, for `Artifact`.

        Raises:
            UserError: One of the artifacts `of` the run is not finished or out of date, or has nothing to export.
        """
        for name in of:
            self._refuse_unusable(name, self._manifest(name))
        tasks = self._tasks.values()
        texts = [text for task in tasks for text in (_asked_for(task), task.answer_prompt, task.metric.name)]
        settings = {
            "export.format": form,
            "export.what": "all" if self.everything else "gaps",
            "export.prompted": self.prompted,
            "export.in_place": self.in_place,
        }
        return {"inputs": {**self._digests(of), "tasks": content_id(*texts)}, "settings": settings, "version": 2}

    def _digests(self, of: tuple[str, ...]) -> dict[str, str]:
        manifests = {name: self._manifest(name) for name in of}
        return {name: content_id(made["fingerprint"], input_digest(made)) for name, made in manifests.items()}

    def _judged(self, pair: Pair, verdict: Verdict) -> ExportedPair:
        if not Path(pair.image).is_file():
            raise UserError(f"the image {pair.image} of pair {pair.pair_id} is missing; put it back")
        pair, verdict = _untagged(pair, "question", "answer"), _untagged(verdict, *_VERDICT_TEXTS)
        prompt = self._tasks[pair.task].answer_prompt
        return ExportedPair(pair, verdict, prompt.format(question=pair.question) if self.prompted else pair.question)

    def _questions(self) -> Iterator[tuple[str, int, Question]]:
        for task in (name for name, data in self._config.tasks.items() if data.test):
            for place, question in enumerate(questions_in(self._config.run, task)):
                yield task, place, question

    def _read(self, artifact: str, file: str, record_type: type[R]) -> Iterator[R]:
        return read_records(self._config.run / artifact / file, record_type)

    def _manifest(self, artifact: str) -> dict[str, Any]:
        if artifact not in self._manifests:
            found = read_manifest(self._config.run / artifact)
            if found is None:
                raise self._unusable(artifact, "are not finished")
            self._manifests[artifact] = found
        return self._manifests[artifact]

    def _refuse_unusable(self, artifact: str, manifest: Mapping[str, Any]) -> None:
        run, counts = self._config.run, manifest["counts"]
        if artifact == "answers" and not counts["questions"]:
            raise UserError(f"no task of {run} has a test split, so there are no answers to export")
        if stale := stale_inputs(run, artifact):
            raise self._unusable(artifact, f"were made from other {' and '.join(stale)} than it has now")
        if artifact != "verdicts":
            return
        if self.everything and not counts["pairs"]:
            raise UserError(f"{run} has no pairs, so there is nothing to export")
        if not self.everything and not counts["gaps"]:
            raise UserError(f"{run} has no gaps, so there is nothing to export; --what all exports the other pairs")

    def _unusable(self, artifact: str, what: str) -> UserError:
        run, command = self._config.run, command_of(artifact, self._stages)
        return UserError(
            f"cannot export from {run}: its {artifact} {what}.\n"
            f"First: parityalign {command} {run}   (or do everything: parityalign run {run / CONFIG})"
        )


_VERDICT_TEXTS = ("reason", "student_text", "teacher_text")


def export_run(
    config: RunConfig, form: str, *, everything: bool, prompted: bool, in_place: bool, out: Path | None
) -> Exported:
    """Exports a run in the format `form`; an export that is up to date is left alone.

    Args:
        config: The run's configuration.
        form: A module in `export/formats/`, with `-` or `_`.
        everything: All pairs with their verdicts, not only the gaps.
        prompted: Questions inside the task's answer prompt.
        in_place: Pictures are named by their full paths and not copied.
        out: The folder to write; None: `exports/FORMAT` of the run, with `-all` for everything.

    Raises:
        UserError: There is no such format, an option does nothing in it, the run has not reached that stage, or the
            folder holds other files.
    """
    part = part_of(form)
    found = load_part(EXPORTS, part, ExportFormat)
    refuse_idle_options(form, found, everything=everything, prompted=prompted, in_place=in_place)
    run = RunExport(config, everything=everything, prompted=prompted, in_place=in_place)
    run.refuse_unknown(part, found.of)
    plan = run.plan(form, found.of)
    target = out or config.run / EXPORTS / f"{form}{'-all' if everything else ''}"
    _refuse_other_files(target)
    put_in_place(target)
    made = Artifact(target, **plan)
    if made.finished:
        made.check()
        return Exported(target, made.manifest["counts"], made=False)
    made.begin()
    made.finish(found.write(run, made.path))
    return Exported(target, made.manifest["counts"], made=True)


def _asked_for(task: Task) -> str:
    """The annotate prompt, with the values of `{kind}`."""
    return f"{task.annotate_prompt}\n({{kind}}: one of {', '.join(task.kinds)})" if task.kinds else task.annotate_prompt


def _untagged(record: R, *fields: str) -> R:
    texts = {field: getattr(record, field) for field in fields}
    return record.model_copy(update={field: text and without_tags(text) for field, text in texts.items()})


def _refuse_other_files(folder: Path) -> None:
    """Refuses a folder with other files, since an old export in it is deleted before a new one is written."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder for the export")
    if _tells_of_export(folder / BEGUN):  # interrupted
        return
    made = read_manifest(folder) if _tells_of_export(folder / MANIFEST) else None
    ours = {MANIFEST, *made["files"]} if made else set()
    others = [name for name in folder_files(folder) if name not in ours]
    if others:
        raise UserError(f"{folder} holds {others[0]}, which no export wrote; name another folder, or an empty one")


def _tells_of_export(mark: Path) -> bool:
    return mark.is_file() and '"export.format"' in mark.read_text(encoding="utf-8", errors="replace")


def _rule_in_words(settings: Mapping[str, Any], metrics: set[str]) -> str:
    threshold, asked = settings["identify.threshold"], settings["identify.ask_teacher"]
    rule = f"that scores at least {threshold} by {' or '.join(sorted(metrics))}, whichever is its task's"
    if settings["identify.rule"] == "judge":
        rule = "that says the same as the pair's answer, by words and numbers (rule: judge)"
    elif settings["identify.rule"] == "paper":
        rule = "that contains the pair's answer, both squeezed (the paper's rule)"
    elif len(metrics) == 1:
        rule = f"that scores at least {threshold} by {metrics.pop()}"
    teacher = "about all pairs" if asked == "all" else "only where the student failed"
    return f"one {rule}; the teacher was asked {teacher}"
