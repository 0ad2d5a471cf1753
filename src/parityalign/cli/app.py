"""The command line: the only module that prints or exits.

Exit status: 0 done, 1 the work failed (what was computed is kept), 2 the request was wrong, 130 interrupted.
The faces of packages load their modules when they are used, so help, scoring and judging answers that were made
elsewhere stay quick and need no torch.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from parityalign import demo, export, metrics, pipeline, planning, report, stages, tasks
from parityalign.cli import show
from parityalign.cli.options import PublicOption, PushOption, Rule, RunArgument, What
from parityalign.cli.tables import counted
from parityalign.config import IdentifySettings, RunConfig, config_in, load_config, read_config, with_teacher
from parityalign.core import CONFIG, DEMO_DATA, Measure, RunFolder, UserError, VerdictKind, part_names, write_whole

P = ParamSpec("P")

DEMO_CONFIG = Path(__file__).parent.parent / "demo" / "demo.yaml"
INTERRUPTED = 130

app = typer.Typer(
    help="Bring a small vision-language model to parity with a large one on your own images, without labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The entry point of the command `parityalign`."""
    app()


def _command(name: str, help: str | None = None) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Makes a function a command that ends with one message and an exit status, not with a traceback.

    Args:
        name: What it is called.
        help: What it does; None: the function's docstring says it.
    """

    def made(command: Callable[P, None]) -> Callable[P, None]:
        @wraps(command)
        def ended(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                command(*args, **kwargs)
            except UserError as problem:
                print(f"parityalign: {problem}", file=sys.stderr)
                raise typer.Exit(problem.exit_status) from problem
            except KeyboardInterrupt as interrupt:
                print("parityalign: interrupted. Resume with the same command.", file=sys.stderr)
                raise typer.Exit(INTERRUPTED) from interrupt

        app.command(name, help=help)(ended)
        return ended

    return made


@_command("demo")
def demo_command(
    run: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/demo"),
    controls: Annotated[bool, typer.Option("--controls", help="Also train on other things, to compare.")] = False,
    teacher: Annotated[
        str | None, typer.Option(help="Another teacher, such as hf:./folder or http://HOST:PORT/v1#NAME.")
    ] = None,
) -> None:
    """Run everything on the bundled teacher, student and pictures."""

    def chosen(config: RunConfig) -> RunConfig:
        return with_teacher(config, teacher, Path.cwd()) if teacher else config

    config = chosen(read_config(DEMO_CONFIG, run))
    pipeline.refuse_shared_folder(config, drawn=config.run / DEMO_DATA)
    pipeline.refuse_foreign_folder(run)
    with pipeline.shown_progress() as progress, RunFolder(run):
        if (run / CONFIG).exists():  # drawing clears `data`, which may be somebody's own
            pipeline.refuse_other_run(read_config(run / CONFIG), config)
        demo.write_demo_data(run / DEMO_DATA, config.seed, progress)
    _align(chosen(load_config(DEMO_CONFIG, run)), controls=controls)


@_command("run")
def run_command(
    config: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The configuration of the run.")],
    redo: Annotated[bool, typer.Option("--redo", help="Work over a run folder of another configuration.")] = False,
    push: PushOption = None,
    public: PublicOption = False,
) -> None:
    """Run everything on your images and models; resumes, and redoes only what a change touches."""

    export.check_push(push, public=public)
    loaded = load_config(config)
    _align(loaded, redo=redo)
    _push(loaded.run, push, public=public)


@_command("plan")
def plan_command(  # noqa: PLR0913 - an option is a parameter
    config: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The configuration of the run.")],
    device: Annotated[str | None, typer.Option(help="Such as a100-80gb; by default this machine.")] = None,
    sample: Annotated[int, typer.Option(min=0, help="Pictures of each task that are opened.")] = 32,
    images: Annotated[int | None, typer.Option(min=1, help="Images of each task, where they are not counted.")] = None,
    image_size: Annotated[str, typer.Option(help="Size of an image in pixels, where none is opened.")] = "1024x768",
    gap_rate: Annotated[float, typer.Option(min=0, max=1, help="Share of the pairs that the student has wrong.")] = 0.5,
    benchmark: Annotated[
        bool | None, typer.Option(help="Time local models on the sample; by default the bundled ones on this machine.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the model hub.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Project tokens, time, memory and money of a run before it begins, and say what was assumed."""

    sampling = planning.SamplingOptions(sample, planning.size_of_picture(image_size), images, offline)
    found = planning.project_run(load_config(config), planning.PlanOptions(sampling, device, gap_rate, benchmark))
    if as_json:
        print(found.as_json())
    else:
        show.show_projection(pipeline.plain_console(), found)


@_command("doctor")
def doctor_command(
    config: Annotated[Path | None, typer.Argument(metavar="[RUN.yaml]", help="Also look at this run's models.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Show what this machine has, and whether and how a run's models would be loaded on it; loads no weights."""

    here = planning.inspect_machine()
    checks = planning.examine_models(load_config(config), here) if config else []
    told = (
        [json.dumps(planning.doctor_record(here, checks), indent=1)] if as_json else planning.doctor_lines(here, checks)
    )
    print("\n".join(told))
    if any(check.problem or check.fits is False for check in checks):
        raise typer.Exit(1)


@_command("identify")
def identify_command(  # noqa: PLR0913 - an option is a parameter
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="Folder of a run that was begun.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Pairs made elsewhere; see docs/interchange.md.")] = None,
    teacher_answers: Annotated[Path | None, typer.Option(help="The teacher's answers to them.")] = None,
    student_answers: Annotated[Path | None, typer.Option(help="The student's answers to them.")] = None,
    task: Annotated[str | None, typer.Option(help="The task that the pairs belong to.")] = None,
    rule: Annotated[Rule | None, typer.Option(help="The task's own metric (default), or the paper's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the verdicts go, as JSON lines.")] = None,
    pairs_format: Annotated[
        str | None, typer.Option(help="pairs, sharegpt, first-release or parquet; else the file tells.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns of a Parquet file, such as question=q,answer=a,pair_id=id.")
    ] = None,
) -> None:
    """Find the gaps: pairs that the teacher has right and the student wrong.

    Works on a run folder, or with the options on pairs and answers made elsewhere; then no model is loaded.
    """

    needed = {
        "--pairs": pairs,
        "--teacher-answers": teacher_answers,
        "--student-answers": student_answers,
        "--task": task,
        "--out": out,
    }
    others = {"--rule": rule, "--pairs-format": pairs_format, "--columns": columns}
    given = [name for name, value in {**needed, **others}.items() if value]
    if run and given:
        raise UserError(f"{', '.join(given)} cannot go with the run folder {run}: its run.yaml has the settings")
    if run:
        _align(config_in(run), only="identify")
    elif pairs and teacher_answers and student_answers and task and out:
        verdicts = stages.identify_from_files(
            pairs,
            teacher_answers=teacher_answers,
            student_answers=student_answers,
            task=tasks.load_task(task),
            settings=IdentifySettings(rule=(rule or Rule.METRIC).value),
            form=pairs_format,
            columns=stages.named_columns(columns),
        )
        _write_lines([verdict.model_dump_json() for verdict in verdicts], out)
        print(counted(Counter(verdict.verdict for verdict in verdicts)))
    else:
        missing = [name for name, value in needed.items() if not value]
        raise UserError(f"identify needs a run folder, or pairs and answers; missing: {', '.join(missing)}")


@_command("discrepancy")
def discrepancy_command(  # noqa: PLR0913 - an option is a parameter
    run: RunArgument,
    task: Annotated[str | None, typer.Option(help="Only the pairs of this task.")] = None,
    verdict: Annotated[
        VerdictKind, typer.Option(help="The list's pairs: by default the gaps.")
    ] = VerdictKind.TEACHER_ONLY,
    sort: Annotated[Measure, typer.Option(help="What orders the list.")] = Measure.CONFIDENCE_GAP,
    top: Annotated[int | None, typer.Option(min=1, help="Pairs of the list; by default 10, in a file all.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.jsonl", help="Where the list goes.")] = None,
) -> None:
    """Show how, and how much, the two models differ on the pairs, and list those where they differ most.

    Scores both models teacher-forced first, where that is missing or out of date, even if run.yaml does not ask for it.

    Compares rationales only where `discrepancy: {rationales: true}` or the objective asks for them.
    """

    config = config_in(run)
    if not report.holds_discrepancy(config):
        _align(config, only="discrepancy")
    everything = report.read_pair_discrepancies(run)
    pairs = report.of_one_task(everything, task)
    wanted = report.ListOptions(verdict, sort, top if out else top or report.LISTED_BY_DEFAULT)
    chosen = report.listed_pairs(pairs, wanted)
    tables = report.discrepancy_tables(pairs, list(config.tasks), seed=config.seed)
    show.show_tables(pipeline.plain_console(), tables if out else [*tables, report.list_table(run, chosen, wanted)])
    if out:
        weights = stages.pair_weights(everything, config.discrepancy)
        _write_lines([json.dumps(row) for row in report.listed_rows(run, chosen, weights)], out)
        print(f"list: {out} ({len(chosen):,} pairs)")


@_command("level")
def level_command(run: RunArgument, push: PushOption = None, public: PublicOption = False) -> None:
    """Train the student on the gaps, with a share of what it had right."""

    export.check_push(push, public=public)
    _align(config_in(run), only="level")
    _push(run, push, public=public)


def _add_stage_commands() -> None:
    """A command for each stage that has none of its own above; those of other packages are found by their name."""
    own = {command.name for command in app.registered_commands}
    told = {stage.name: stage.help for stage in stages.STAGES if stage.asked_by == stage.name}
    told |= {name: f"Do the stage {name} of another package." for name in part_names("stages")}
    for name, sentence in told.items():
        if name not in own:
            _command(name, sentence)(_stage_command(name))


def _stage_command(name: str) -> Callable[[Path], None]:
    def command(run: RunArgument) -> None:
        _align(config_in(run), only=name)

    return command


@_command("report")
def report_command(run: RunArgument) -> None:
    """Write report.html from what the run has so far."""

    print(f"report: {report.write_report(run)}")


@_command("export")
def export_command(
    run: RunArgument,
    form: Annotated[str, typer.Option("--format", help="Such as llava, messages, trl, hf-dataset, evaluation-log.")],
    what: Annotated[What, typer.Option(help="The gaps, or all pairs with their verdicts.")] = What.GAPS,
    prompted: Annotated[
        bool,
        typer.Option("--prompted", help="Write questions inside the task's answer prompt, as the models saw them."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The folder to write; by default RUN/exports/FORMAT.")] = None,
) -> None:
    """Write what a run found in a form that other tools read; see docs/interchange.md."""

    done = export.export_run(config_in(run), form, everything=what == What.ALL, prompted=prompted, out=out)
    print(f"{'export' if done.made else 'up to date'}: {done.path} ({counted(done.counts)})")


@_command("score")
def score_command(
    metric: Annotated[str, typer.Argument(metavar="METRIC", help="Such as anls or textvqa_accuracy.")],
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="Lines with prediction and answers.")],
    out: Annotated[Path | None, typer.Option(help="Write the scored lines here, not to the terminal.")] = None,
) -> None:
    """Score predictions made anywhere: one JSON line a case, then the mean with its count."""

    scores, lines = [], []
    for row in metrics.score_file(metric, file):
        scores.append(row["score"])
        lines.append(json.dumps(row))
    _write_lines(lines, out)
    print(json.dumps({"metric": metric, "mean": sum(scores) / len(scores), "count": len(scores)}))


def _align(config: RunConfig, *, only: str | None = None, redo: bool = False, controls: bool = False) -> None:
    """Runs the pipeline, or the one stage of it that `only` names, and shows what came of it."""
    run = pipeline.open_run(config)
    if controls:
        run.work(_with_controls, redo=redo)
    else:
        run.upto(only, alone=only is not None, redo=redo)
    show.show_outcomes(pipeline.plain_console(), run.outcomes)
    if only is None:
        show.show_result(pipeline.plain_console(), run.path, list(config.tasks))


def _with_controls(run: "pipeline.Run") -> None:
    for _ in pipeline.align(run):
        pass
    demo.run_controls(run)


def _push(run: Path, repo: str | None, *, public: bool) -> None:
    if repo is not None:
        print(f"pushed: {export.push_student(run, repo, public=public)}")


def _write_lines(lines: list[str], out: Path | None) -> None:
    if out is None:
        print("\n".join(lines))
    elif not out.parent.is_dir():
        raise UserError(f"cannot write {out}: the folder {out.parent} does not exist")
    else:
        write_whole(out, "".join(f"{line}\n" for line in lines))


_add_stage_commands()
