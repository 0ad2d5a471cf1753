"""Trains, asks and scores one cell after the other, by the product's own functions, and records them."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import yaml

from parityalign import __version__
from parityalign.cli.run_commands import DEMO_CONFIG
from parityalign.config import LevelSettings, load_config
from parityalign.core import EMBEDDED_MODELS, Answer, Artifact, Judged, LevelResult, UserError, content_id, file_digest
from parityalign.demo.controls import true_labels
from parityalign.engines import CachedModel
from parityalign.pipeline import Aligned, Arm, Run, align, control_arm, identified_of, trained_on
from parityalign.pipeline.preflight import open_run_folder
from parityalign.stages import TEACHER_FILE, Choice, answer_tests
from parityalign.stages.acceptance import is_better, judged_after
from parityalign.stages.identify import answers_to
from picking.cells import (
    ALL,
    FORMAT,
    GAPS,
    HALF,
    MOST,
    PAPER,
    PAPERS_WAY,
    RANDOM,
    RATES,
    STUDY,
    TRUE,
    Cell,
    Record,
    add,
    cell_of,
    packed,
    records,
)
from picking.pools import gap_share, is_gap, is_usable, pool_of


def _gaps(**settings: object) -> Callable[[Aligned], Arm]:
    return lambda aligned: Arm("gaps", "", aligned.chosen(**settings))


ARMS: Mapping[str, Callable[[Aligned], Arm]] = {
    GAPS: _gaps(),
    HALF: _gaps(replay=0.5),
    MOST: _gaps(replay=0.8),
    PAPER: _gaps(replay=0.0),
    RANDOM: lambda aligned: control_arm(aligned, "random"),
    ALL: lambda aligned: control_arm(aligned, "all"),
    TRUE: true_labels,
    FORMAT: lambda aligned: control_arm(aligned, "format"),
}


def settings_of(run: Run, cell: Cell) -> LevelSettings:
    """How a cell is trained."""
    changes = {**STUDY, "learning_rate": RATES[cell.pool.student], "max_steps": cell.steps or None}
    papers = PAPERS_WAY if cell.arm == PAPER else {}
    return LevelSettings.model_validate({**run.config.level.model_dump(), **changes, **papers})


def the_demo() -> str:
    """A digest of all that the demo's pairs hang on: both bundled models and its settings, but for those of level."""
    weights = [file_digest(EMBEDDED_MODELS / name / "model.safetensors") for name in ("teacher", "student")]
    said = yaml.safe_load(DEMO_CONFIG.read_text())
    del said["level"]
    return content_id(*weights, json.dumps(said, sort_keys=True))


def refuse_another_demo(out: Path) -> None:
    """Refuses records of another demo, before anything is drawn or trained.

    Raises:
        UserError: There are some in the folder.
    """
    if any(record.get("demo") != the_demo() for record in records(out) if "student" in record):
        raise UserError(
            f"the records in {out} were measured with another bundled teacher or other settings of the demo.\n"
            "Begin a study of its own (--records FOLDER), or go on with the version that began that one."
        )


class Seed:
    """One seed's pictures: the demo's run on them, and the strong student's.

    Args:
        runs: The folder with a finished run of the demo for each seed, `demo-0` and so on.
        count: How many seeds there are; the strong student is that of the next one's run.
        seed: Which.
        out: The folder of the records.
    """

    def __init__(self, runs: Path, count: int, seed: int, out: Path, open_runs: ExitStack) -> None:
        self._runs, self._seed, self._out, self._open_runs = runs, seed, out, open_runs
        self._strong_student = runs / f"demo-{(seed + 1) % count}" / "student"
        mine = [record for record in records(out) if record["seed"] == seed]
        self._done = {cell_of(record) for record in mine if "arm" in record}
        self._known = {record["student"] for record in mine if "student" in record}

    def do(self, cells: Sequence[Cell]) -> None:
        """Trains and records what has no record yet."""
        for cell in cells:
            if cell not in self._done:
                self._describe(cell.pool.student)
                print(f"seed {self._seed}: {cell.pool.name}, {cell.arm}, {cell.steps} steps", flush=True)
                add(self._out, self._seed, self._record(cell))
                self._done.add(cell)

    @cached_property
    def _weak(self) -> Run:
        config = load_config(self._runs / f"demo-{self._seed}" / "run.yaml")
        run = self._open_runs.enter_context(open_run_folder(config, lambda *_: None))
        for _ in align(run):
            pass
        return run

    @cached_property
    def _strong(self) -> Run:
        """On the same pictures and pairs; the teacher is asked only what it has not been asked for the weak one."""
        weak = self._weak.config
        changes = {
            "run": self._runs / f"strong-{self._seed}",
            "student": f"hf:{self._strong_student}",
            "answers": weak.run / "answers.sqlite",
        }
        config = weak.model_copy(update=changes)
        run = self._open_runs.enter_context(open_run_folder(config, lambda *_: None))
        for stage in run.stages:
            run.do(stage)
            if stage.name == "identify":
                break
        return run

    def _run(self, student: str) -> Run:
        return self._strong if student == "strong" else self._weak

    def _describe(self, student: str) -> None:
        """Records what is the same for all of a student's cells, once."""
        if student in self._known:
            return
        run, tests = self._run(student), self._weak.tests
        teacher = {
            answer.item_id: answer.text for answer in self._weak.artifact("answers").stream(TEACHER_FILE, Answer)
        }
        usable = [each for each in run.judged if is_usable(each)]
        described = {
            "seed": self._seed,
            "student": student,
            "demo": the_demo(),
            "weights": run.models.student_fingerprint,
            "pairs": len(usable),
            "gaps": sum(map(is_gap, usable)),
            "teacher calls": {
                "annotate": run.artifact("pairs").manifest["counts"]["replies"],
                "identify": sum(each.verdict.teacher_text is not None for each in run.judged),
            },
            "images": {name: _numbered([question.image for question in asked]) for name, asked in tests.items()},
            "before": self._scores(self._said(run.student)),
            "teacher": self._scores(teacher),
        }
        add(self._out, self._seed, described)
        self._known.add(student)

    def _record(self, cell: Cell) -> Record:
        run, began, cpu = self._run(cell.pool.student), time.monotonic(), time.process_time()
        settings = settings_of(run, cell)
        aligned = identified_of(run, settings)
        judged = pool_of(aligned.judged, cell.pool, self._seed)
        aligned = aligned._replace(judged=judged)
        arm = ARMS[cell.arm](aligned)
        student = trained_on(run, arm, settings, f"study/{cell.name}")
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu
        result = LevelResult(**student.manifest["result"])
        made = {
            "seed": self._seed,
            "pool": cell.pool._asdict(),
            "arm": cell.arm,
            "steps": cell.steps,
            "version": __version__,
            "on": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
            "made of": content_id(*map(str, (student.manifest["inputs"], student.manifest["settings"]))),
            "weights": student.digest,
            "gap share": round(gap_share(judged), 4),
            "taken of": sum(map(is_usable, judged)),
            "training": len(arm.choice.training),
            "gaps trained on": len({each.pair.pair_id for each in judged if is_gap(each)} & _ids(arm.choice)),
            "result": vars(result),
            "held out": self._held_out(run, student, result, arm.choice.held_out),
            "scores": self._scores(self._said(run.trained(student))),
            "seconds": round(seconds, 1),
            "CPU seconds": round(cpu_seconds, 1),
        }
        shutil.rmtree(student.path)  # half a gigabyte a seed; it could be made again, bit for bit
        return made

    def _held_out(self, run: Run, student: Artifact, result: LevelResult, pairs: Sequence[Judged]) -> dict[str, object]:
        said = [self._answers(run, model, pairs) for model in (run.student, run.trained(student))]
        held = judged_after(pairs, said[0], said[1], run.tasks, run.config.identify)
        return {
            "pairs": len(held),
            "before": sum(each.right_before for each in held),
            "after": sum(each.right_after for each in held),
            "accepted": bool(result.best_step) and is_better(result, held),
        }

    def _answers(self, run: Run, model: CachedModel, pairs: Sequence[Judged]) -> dict[str, str]:
        asked = [pair for pair, _ in pairs]
        answers = answers_to(model, asked, run.tasks, settings=run.config.identify, on_progress=lambda *_: None)
        return {pair_id: answer.text for pair_id, answer in answers.items()}

    def _said(self, student: CachedModel) -> dict[str, str]:
        """Answers to the test questions."""
        run = self._weak
        settings, seed = run.config.evaluate, run.config.seed
        answers = answer_tests(student, run.tests, run.tasks, settings=settings, seed=seed, on_progress=lambda *_: None)
        return {answer.item_id: answer.text for answer in answers}

    def _scores(self, said: Mapping[str, str]) -> dict[str, str]:
        """The score of each test question, by task."""
        tasks = self._weak.tasks
        return {
            name: packed(
                [tasks[name].metric.score(said[f"{name}:{q.question_id}"], q.answers).value for q in questions]
            )
            for name, questions in self._weak.tests.items()
        }


def _ids(choice: Choice) -> set[str]:
    return {pair.pair_id for pair in choice.training}


def _numbered(images: Sequence[object]) -> list[int]:
    """Each image's number, in the order in which they appear."""
    numbers: dict[object, int] = {}
    return [numbers.setdefault(image, len(numbers)) for image in images]
