"""The Python API: open a run, do its stages, and read its records and tables; or judge answers without a run.

    run = open_run("RUN.yaml")
    run.upto("identify")
    run.gaps, run.to_pandas("judged")
    run.upto().scores

docs/python.md has the rest.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from parityalign.config import IdentifySettings, RunConfig, config_in, config_of, load_config
from parityalign.core import (
    CONFIG,
    REPORT,
    SCORES,
    STUDENT_FOLDER,
    ImageRef,
    Judged,
    Pair,
    Progress,
    Record,
    Reply,
    Scores,
    Stream,
    UserError,
    Verdict,
    content_id,
    did_you_mean,
    missing_package,
    read_manifest,
    refuse_changed,
)
from parityalign.pipeline.pipeline import align
from parityalign.pipeline.preflight import open_run_folder, with_asked
from parityalign.pipeline.progress import shown_progress
from parityalign.pipeline.run import Outcome, Run
from parityalign.report import read_record
from parityalign.stages import LEVELLED, command_of, image_with_path, judge_answers, pairs_in, reviewed_pairs, stages_of
from parityalign.tasks import load_task

if TYPE_CHECKING:
    import pandas as pd

R = TypeVar("R", bound=Record)

Answers = Sequence[str | None] | Mapping[str, str | None]
"""One answer per pair in order, or by pair id; None: no answer."""

TABLES: Mapping[str, tuple[str, str, type[Record]]] = {
    "images": ("images", "accepted.jsonl", ImageRef),
    "replies": ("pairs", "replies.jsonl", Reply),
    "pairs": ("pairs", "pairs.jsonl", Pair),
    "verdicts": ("verdicts", "verdicts.jsonl", Verdict),
    "gaps": ("verdicts", "gaps.jsonl", Pair),
}
"""What can be read as records: its name, and in which artifact's file it lies."""
JUDGED = "judged"
"""The table that is made of two: pairs and their verdicts."""


def open_run(run: str | Path | RunConfig, *, progress: Progress | None = None, **settings: object) -> "OpenRun":
    """Opens a run; nothing is computed or loaded before `upto`.

    Args:
        run: A RUN.yaml, the folder of a run that was begun, or a configuration. With `settings`: the run folder,
            begun or not.
        progress: Told (step, items done, items in all). None: bars on a terminal, lines elsewhere, as in notebooks.
        settings: In the place of a RUN.yaml, what it would say: `teacher`, `student`, `tasks`, ... (docs/settings.md).
            Relative paths start at the working directory.

    Raises:
        UserError: There is no such file or run, or a setting is wrong.
    """
    if settings:
        return OpenRun(config_of({"run": _folder_of(run, settings), **_written(settings)}), progress)
    if isinstance(run, RunConfig):
        return OpenRun(run, progress)
    path = Path(run)
    return OpenRun(config_in(path) if path.is_dir() else load_config(path), progress)


def _folder_of(run: str | Path | RunConfig, settings: Mapping[str, object]) -> str:
    if isinstance(run, RunConfig) or Path(run).is_file():
        given = "a configuration" if isinstance(run, RunConfig) else f"the file {run}"
        raise UserError(
            f"open_run was given {given} and the settings {', '.join(settings)}. Settings stand in the place of a "
            "RUN.yaml: name a run folder with them, or change the file"
        )
    return str(run)


def _written(settings: Mapping[str, object]) -> dict[str, object]:
    """As a file would have them: paths are text there."""
    return {key: _as_text(value) for key, value in settings.items()}


def _as_text(value: object) -> object:
    if isinstance(value, Mapping):
        return _written(value)
    if isinstance(value, list | tuple):
        return [_as_text(each) for each in value]
    return str(value) if isinstance(value, Path) else value


class OpenRun:
    """A run, to work on and to read. The run folder is locked only during `upto`.

    What is read comes from the run folder each time, so another process may do the work.

    Attributes:
        config: The configuration.
        outcomes: The outcome of each stage in the last call of `upto`.
    """

    def __init__(self, config: RunConfig, progress: Progress | None = None) -> None:
        self.config = config
        self.outcomes: list[Outcome] = []
        self._progress = progress

    def __repr__(self) -> str:
        """The path and the stages done."""
        done = [stage.name for stage in stages_of(self.config) if read_manifest(self.path / stage.artifact)]
        return f"<run {self.path}: {', '.join(done) or 'not begun'}>"

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.config.run

    def upto(self, stage: str | None = None, *, alone: bool = False, redo: bool = False, trusts: bool = False) -> Self:
        """Does every stage up to this one that is not up to date; None: all, and the report.

        Args:
            stage: As its command is called: `intake`, `annotate`, `identify`, `level`, `evaluate`, ...
            alone: Whether the stages before have to be up to date already.
            redo: Whether the results of other models may be worked over. Other settings and images need no leave.
            trusts: Whether files of finished artifacts are used without comparing them with their digests.

        Returns:
            The run itself, so that `run.upto("identify").gaps` can be written.

        Raises:
            UserError: There is no such stage, or the run cannot be done; what was computed is kept.
        """
        known = list(dict.fromkeys(each.asked_by for each in stages_of(with_asked(self.config, stage))))
        if stage is not None and stage not in known:
            raise UserError(f"the run {self.path} has no stage {stage!r}. {did_you_mean(stage, known)}")

        def work(run: Run) -> None:
            for _ in align(run, upto=stage):
                pass

        self.work(work, only=stage if alone else None, asked=stage, redo=redo, trusts=trusts)
        return self

    def __call__(self) -> Self:
        """Does all stages that are left."""
        return self.upto()

    def work(
        self,
        work: Callable[[Run], object],
        *,
        only: str | None = None,
        asked: str | None = None,
        redo: bool = False,
        trusts: bool = False,
    ) -> None:
        """Calls a function with the locked run, for work outside the stages, such as the demo's controls."""
        watching = nullcontext(self._progress) if self._progress else shown_progress()
        opened = partial(open_run_folder, only=only, asked=asked, redo=redo, trusts=trusts)
        with watching as told, opened(self.config, told) as run:
            self.outcomes = run.outcomes
            work(run)

    @property
    def pairs(self) -> list[Pair]:
        """The pairs as they were written, the teacher's and one's own; `judged` has a person's corrections."""
        return self._pairs("pairs")

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdict on each pair, in the order of the pairs."""
        return self._read("verdicts", Verdict)

    @property
    def judged(self) -> list[Judged]:
        """The pairs with their verdicts.

        Raises:
            UserError: The pairs were written anew since they were judged.
        """
        self._refuse_without("pairs")
        pairs, verdicts = [*reviewed_pairs(self.path)], self.verdicts
        if [pair.pair_id for pair in pairs] != [verdict.pair_id for verdict in verdicts]:
            raise UserError(f"the verdicts of {self.path} are of earlier pairs: call upto('identify')")
        return [Judged(pair, verdict) for pair, verdict in zip(pairs, verdicts, strict=True)]

    @property
    def gaps(self) -> list[Pair]:
        """The pairs that the teacher has right and the student wrong."""
        return self._pairs("gaps")

    @property
    def scores(self) -> Scores | None:
        """The scores on the labelled test splits; None before evaluate."""
        return read_record(self.path / SCORES, Scores)

    @property
    def student(self) -> Path | None:
        """The levelled student: an ordinary Hugging Face folder. None if nothing was levelled, or not yet."""
        folder = self.path / STUDENT_FOLDER
        manifest = read_manifest(folder)
        return folder if manifest and manifest["outcome"] == LEVELLED else None

    @property
    def report(self) -> Path:
        """The path of the report, which may not exist yet."""
        return self.path / REPORT

    def to_pandas(self, table: str) -> "pd.DataFrame":
        """Records as a data frame, a row a record.

        Args:
            table: `images`, `replies`, `pairs`, `verdicts`, `gaps`, or `judged` for pairs and verdicts side by side.

        Raises:
            UserError: There is no such table, it was not made yet, or pandas is not installed.
        """
        try:
            import pandas as pd  # noqa: PLC0415
        except ModuleNotFoundError as problem:
            raise missing_package("to_pandas", "pandas", "'parityalign[pandas]'") from problem
        if table not in (*TABLES, JUDGED):
            raise UserError(f"there is no table {table!r}; there are {', '.join((*TABLES, JUDGED))}")
        kinds = (Pair, Verdict) if table == JUDGED else (TABLES[table][2],)
        columns = dict.fromkeys(field for kind in kinds for field in kind.model_fields)
        rows = self.judged if table == JUDGED else [(record,) for record in self._records(table)]
        return pd.DataFrame([_row(*records) for records in rows], columns=[*columns])

    def _read(self, table: str, kind: type[R]) -> list[R]:
        path = self._refuse_without(table)
        refuse_changed(path)
        return list(Stream(path, kind, read_only=True))

    def _refuse_without(self, table: str) -> Path:
        artifact, file, _ = TABLES[table]
        path = self.path / artifact / file
        if not path.is_file():
            raise UserError(
                f"the run {self.path} has no {table} yet: call upto({command_of(artifact)!r}), "
                f"or run: parityalign run {self.path / CONFIG}"
            )
        return path

    def _pairs(self, table: str) -> list[Pair]:
        return [each for each in self._records(table) if isinstance(each, Pair)]

    def _records(self, table: str) -> Sequence[Record]:
        """The records of a table, with full paths of images."""
        artifact, file, kind = TABLES[table]
        found = self._read(table, kind)
        if kind is Pair:
            return [*pairs_in(self.path, f"{artifact}/{file}")]
        return [image_with_path(each, self.path) if isinstance(each, ImageRef) else each for each in found]


def _row(*records: Record) -> dict[str, object]:
    return {field: value for record in records for field, value in record.model_dump(mode="json").items()}


def identify(
    pairs: Sequence[Pair | Mapping[str, str]],
    student: Answers,
    teacher: Answers,
    *,
    task: str,
    rule: str = "judge",
    ask_teacher: str = "failures",
) -> list[Verdict]:
    """Judges existing answers: one verdict per pair, without a run or a model.

    Args:
        pairs: Records, or mappings with `pair_id`, `question` and `answer`.
        student: The student's answers, in the order of the pairs or by pair id; None: no answer.
        teacher: The teacher's answers; not needed where the student is right.
        task: The task that the pairs belong to, such as `textvqa`; `rule: metric` takes its metric.
        rule: `judge` compares words and numbers as a reader would, `metric` takes the task's metric, `paper` the
            substring rule of the MPA paper.
        ask_teacher: `all`: the teacher's answer counts for every pair.

    Raises:
        UserError: There is no such task, a pair lacks a field or an id is given twice.
    """
    given = [pair if isinstance(pair, Pair) else _pair(pair, task) for pair in pairs]
    settings = IdentifySettings.model_validate({"rule": rule, "ask_teacher": ask_teacher})
    answers = [_by_id(given, answers) for answers in (student, teacher)]
    return judge_answers(given, *answers, task=load_task(task), settings=settings)


def _pair(given: Mapping[str, str], task: str) -> Pair:
    if lacking := [field for field in ("question", "answer") if field not in given]:
        raise UserError(f"the pair {dict(given)!r} has no {lacking[0]!r}; a pair has pair_id, question and answer")
    image, question, answer = given.get("image", ""), given["question"], given["answer"]
    pair_id = given.get("pair_id") or content_id(image, task, question, answer, "")
    return Pair(pair_id=pair_id, image_id="", image=image, task=task, question=question, answer=answer, teacher="")


def _by_id(pairs: Sequence[Pair], answers: Answers) -> dict[str, str | None]:
    if isinstance(answers, Mapping):
        return dict(answers)
    if len(answers) != len(pairs):
        raise UserError(f"{len(answers)} answers for {len(pairs)} pairs; give one per pair, or a mapping by pair id")
    return {pair.pair_id: answer for pair, answer in zip(pairs, answers, strict=True)}
