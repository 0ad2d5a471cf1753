"""A stage: asks the teacher each of its own questions again, and counts the answers that it does not repeat."""

from collections.abc import Mapping, Sequence

from parityalign.config import RunConfig
from parityalign.core import Answer, Artifact, Decoding
from parityalign.stages import PlannedAmounts, PlannedRequests, Stage, StageRun, as_asked


def work(run: StageRun, artifact: Artifact) -> None:
    """Makes the artifact, and finishes it with its counts; what was asked before is not asked again."""
    settings = run.config.identify
    answers = run.teacher.answer(
        [as_asked(pair, run.tasks[pair.task]) for pair in run.pairs],
        decoding=Decoding(settings.max_new_tokens),
        batch_size=settings.batch_size,
        on_progress=lambda done, total: run.progress("check_labels", done, total),
    )
    artifact.stream("answers.jsonl", Answer).write(answers.values())
    repeated = sum(
        run.tasks[pair.task].metric.on_pair(answers[pair.pair_id].text, pair.answer).value >= settings.threshold
        for pair in run.pairs
    )
    artifact.finish({"repeated": repeated, "not repeated": len(run.pairs) - repeated})


def planned(config: RunConfig, amounts: Mapping[str, PlannedAmounts]) -> Sequence[PlannedRequests]:
    """What `parityalign plan` reckons with: a question for each pair."""
    return [PlannedRequests("teacher", {task: each.pairs for task, each in amounts.items()}, reply_tokens=5)]


STAGE = Stage(
    "check_labels",
    artifact="label_checks",
    after="annotate",
    of=("pairs", "teacher model", "answer prompt", "metric"),
    settings=("identify.max_new_tokens", "identify.threshold"),
    work=work,
    planned=planned,
    help="Ask the teacher its own questions again.",
)
