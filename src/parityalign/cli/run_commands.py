"""The commands that make a run, and those that look at one."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from parityalign import demo, export, pipeline, report, stages, viewer
from parityalign.cli import records, show
from parityalign.cli.commands import app, command
from parityalign.cli.first_config import STUDENT, TEACHER, write_first_config
from parityalign.cli.options import (
    ConfigArgument,
    DetailsOption,
    PublicOption,
    PushOption,
    RunArgument,
    SetOption,
)
from parityalign.cli.telling import Told
from parityalign.cli.terminal import say
from parityalign.config import RunConfig, config_in, load_config, read_config, with_teacher
from parityalign.core import CONFIG, DEMO_DATA, RunFolder, UserError, part_names, trusting_files

DEMO_CONFIG = Path(__file__).parent.parent / "demo" / "demo.yaml"


@command("demo", "demo --pictures 40 --run runs/small", "demo --controls")
def demo_command(
    run: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/demo"),
    controls: Annotated[bool, typer.Option("--controls", help="Also train control students on other data.")] = False,
    details: DetailsOption = False,
    teacher: Annotated[
        str | None, typer.Option(help="Use another teacher, such as hf:./folder or http://HOST:PORT/v1#NAME.")
    ] = None,
    pictures: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Pictures in each task's pool; its test has a fifth. (default: 1500)"),
    ] = None,
) -> Told:
    """Run all stages on the bundled teacher, student and pictures."""

    def chosen(config: RunConfig) -> RunConfig:
        return with_teacher(config, teacher, Path.cwd()) if teacher else config

    config = chosen(read_config(DEMO_CONFIG, run))
    pipeline.refuse_shared_folder(config, drawn=config.run / DEMO_DATA)
    pipeline.refuse_foreign_folder(run)
    with pipeline.shown_progress() as progress, RunFolder(run):
        if (run / CONFIG).exists():  # drawing clears `data`, which may be the user's own
            pipeline.refuse_other_run(read_config(run / CONFIG), config)
        demo.write_demo_data(run / DEMO_DATA, config.seed, progress, pictures=pictures)
    then = demo.run_controls if controls else None
    return align(chosen(load_config(DEMO_CONFIG, run)), then=then, details=details)


@command("init", "init", "init RUN.yaml --images photos --teacher hf:Qwen/Qwen2-VL-7B-Instruct")
def init_command(
    file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The file to write.")] = Path("RUN.yaml"),
    images: Annotated[str | None, typer.Option(help="A folder of images, or another source of them.")] = None,
    teacher: Annotated[str | None, typer.Option(help="As in RUN.yaml, such as hf:OWNER/NAME.")] = None,
    student: Annotated[str | None, typer.Option(help="As in RUN.yaml, such as hf:OWNER/NAME.")] = None,
) -> None:
    """Write a RUN.yaml for your images and models; asks for what no option says."""

    images = images or typer.prompt("Where are your images (a folder)", type=str)
    teacher = teacher or typer.prompt("The teacher, a large model", default=TEACHER, type=str)
    student = student or typer.prompt("The student, a small model", default=STUDENT, type=str)
    write_first_config(file, images=images, teacher=teacher, student=student)
    say(f"written: {file}\nnext: parityalign plan {file}, parityalign preview {file}, parityalign run {file}")


@command("run", "run RUN.yaml", "run RUN.yaml --until identify", "run RUN.yaml --set level.epochs=3 --dry-run")
def run_command(  # noqa: PLR0913 - an option is a parameter
    config: ConfigArgument,
    changes: SetOption = None,
    redo: Annotated[bool, typer.Option("--redo", help="Work over a run folder that has other models.")] = False,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="The last stage to do, such as identify.")] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done and asked, and why.")] = False,
    trusts: Annotated[bool, typer.Option("--trust", help="Do not compare files with their digests.")] = False,
    details: DetailsOption = False,
    controls: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Also train as long on something else, to compare: random, all, gaps, format; with commas.",
        ),
    ] = None,
    push: PushOption = None,
    public: PublicOption = False,
) -> Told:
    """Run all stages on your images and models; resumes, and redoes only what a change affects."""

    loaded = load_config(config, changes=changes or ())
    if dry:
        with pipeline.shown_progress() as progress:
            steps = pipeline.dry_steps(loaded, progress)
        show.show_steps(pipeline.plain_console(), steps)
        return Told(lambda: records.steps_record(loaded.run, steps))
    export.check_push(push, public=public)
    names = pipeline.control_names(controls) if controls else ()
    if names and until:
        raise UserError(f"--controls compares with the levelled student, which --until {until} does not make")
    then = partial(pipeline.run_controls, names=names) if names else None
    told = align(loaded, until=until, redo=redo, then=then, trusts=trusts, details=details)
    return _push(told, loaded.run, push, public=public)


@command("preview", "preview RUN.yaml --pairs 5")
def preview_command(
    config: ConfigArgument,
    changes: SetOption = None,
    count: Annotated[int, typer.Option("--pairs", min=1, help="How many pairs to ask for, one an image.")] = 10,
) -> Told:
    """Ask for a few pairs, judge them and show them, before the rest is paid for; the run asks only for the rest."""

    found: list[report.Preview] = []
    run = pipeline.open_run(load_config(config, changes=changes or ()))
    run.work(lambda working: found.extend(pipeline.make_preview(working, count)))
    show.show_preview(pipeline.plain_console(), found, run.path)
    return Told(lambda: records.preview_record(run.path, found))


@command("status", "status runs/signs")
def status_command(run: RunArgument) -> Told:
    """Show how far a run is: its stages, what is up to date, what they counted, asked and took."""

    config = config_in(run)
    with pipeline.shown_progress() as progress:
        found = pipeline.status_of(config, progress)
    waiting = pipeline.waiting_jobs(config)
    show.show_status(pipeline.plain_console(), found, waiting)
    return Told(lambda: records.status_record(config.run, found, waiting))


@command("view", "view runs/signs", "view runs/a runs/b --port 8765")
def view_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of existing runs.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine. (default: a free one)")] = 0,
) -> None:
    """Show runs in a browser on this machine: pairs to review, test questions, progress, and the models to try."""

    viewer.refuse_missing_packages()
    viewer.serve_runs(runs, port=port, say=say)


@command("answers", "answers runs/signs --drop-unused")
def answers_command(
    run: RunArgument,
    drop: Annotated[bool, typer.Option("--drop-unused", help="Drop what no artifact of any run is made from.")] = False,
) -> Told:
    """Show what the run's answer store holds, and how large it is."""

    config, dropped = config_in(run), None
    with pipeline.answers_of(config) as store:
        if drop:
            with RunFolder(config.run):  # what a run at work has used so far is not all that it will use
                dropped = store.drop_unused()
            say(f"dropped: {dropped:,}")
        held, path = store.holdings(), store.path
    show.show_holdings(pipeline.plain_console(), held, path)
    return Told(lambda: records.holdings_record(held, path, dropped))


@command("level", "level runs/signs", "level runs/signs --push OWNER/NAME")
def level_command(run: RunArgument, push: PushOption = None, public: PublicOption = False) -> Told:
    """Train the student on the gaps, with a share of what it had right."""

    export.check_push(push, public=public)
    return _push(align(config_in(run), only="level"), run, push, public=public)


def add_stage_commands() -> None:
    """Adds a command for each stage without one above, including those of other packages."""
    own = {each.name for each in app.registered_commands}
    told = {stage.name: stage.help for stage in stages.STAGES if stage.asked_by == stage.name}
    told |= {name: f"Do the stage {name} of another package." for name in part_names("stages")}
    for name, sentence in told.items():
        if name not in own:
            command(name, f"{name} runs/signs", help=sentence)(_stage_command(name))


def _stage_command(name: str) -> Callable[[Path], Told]:
    def work(run: RunArgument) -> Told:
        return align(config_in(run), only=name)

    return work


def align(  # noqa: PLR0913 - one for each option of the commands
    config: RunConfig,
    *,
    only: str | None = None,
    until: str | None = None,
    redo: bool = False,
    then: Callable[["pipeline.Run"], None] | None = None,
    trusts: bool = False,
    details: bool = False,
) -> Told:
    """Runs the pipeline, up to the stage `until` or only the stage `only`, or `then` more, and shows the results."""
    run = pipeline.open_run(config)
    if then:
        run.work(lambda working: _whole(working, then), redo=redo, trusts=trusts)
    else:
        run.upto(only or until, alone=only is not None, redo=redo, trusts=trusts)
    whole = only is None and until is None
    show.show_outcomes(pipeline.plain_console(), run.outcomes, details=details or not whole)
    if "annotate" in (only, until):
        show.show_tables(pipeline.plain_console(), report.question_tables(run.path, list(config.tasks)))
    if whole:
        with trusting_files(trusts):
            show.show_result(pipeline.plain_console(), run.path, list(config.tasks), details=details)

    def record() -> Mapping[str, object]:
        with trusting_files(trusts):
            return records.run_record(run.path, run.outcomes, list(config.tasks))

    return Told(record)


def _whole(run: "pipeline.Run", then: Callable[["pipeline.Run"], None]) -> None:
    for _ in pipeline.align(run):
        pass
    then(run)


def _push(told: Told, run: Path, repo: str | None, *, public: bool) -> Told:
    """Uploads the student, if a repository is named, and tells where."""
    if repo is None:
        return told
    pushed = export.push_student(run, repo, public=public)
    say(f"pushed: {pushed}")
    return Told(lambda: {**told.record(), "pushed": pushed})
