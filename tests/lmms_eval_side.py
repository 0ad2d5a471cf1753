"""What lmms-eval says of a run, in an environment of its own, which has lmms-eval and not this package.

    PYTHON tests/lmms_eval_side.py EXPORT DATA OUT

EXPORT has a run's samples, DATA the data sets that the run's tasks were tested on, as `save_to_disk` writes them. Its
own tasks are evaluated on these data sets, by a model that says again what the student said before levelling, and are
compared with the samples of the teacher as a baseline. Into OUT go `told.json` and the samples that lmms-eval logs.
"""

import json
import sys
from pathlib import Path

import lmms_eval
import yaml
from lmms_eval.api.model import lmms
from lmms_eval.baselines import load_baseline
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.loggers import EvaluationTracker
from lmms_eval.tasks import TaskManager

TASKS = {
    "textvqa": ("textvqa/textvqa_val.yaml", "exact_match"),
    "chartqa": ("chartqa/chartqa.yaml", "relaxed_overall"),
    "docvqa": ("docvqa/docvqa_val.yaml", "anls"),
}
"""The file of each of its tasks, and what that calls its score."""


class SaysAgain(lmms):
    """Answers by the number of the question."""

    def __init__(self, said: dict[int, str]) -> None:
        super().__init__()
        self._said = said

    def generate_until(self, requests: list) -> list[str]:
        """The reply to each question."""
        numbers = [number for _, _, _, number, _, _ in (request.args for request in requests)]
        return [self._said[number] for number in numbers]

    def generate_until_multi_round(self, requests: list) -> list[str]:
        """No task here asks so."""
        raise NotImplementedError

    def loglikelihood(self, requests: list) -> list[tuple[float, bool]]:
        """No task here asks so."""
        raise NotImplementedError


def write_task(name: str, data: Path, out: Path) -> None:
    """Its own task, on another copy of the data set, and with the name of the score for its paired test."""
    file, score = TASKS[name]
    task = {
        "include": str(Path(lmms_eval.__file__).parent / "tasks" / file),
        "task": f"our_{name}",
        "dataset_path": str(data / name),
        "dataset_kwargs": {"load_from_disk": True},
        "score_key": score,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"our_{name}.yaml").write_text(yaml.safe_dump(task))


def evaluate(name: str, export: Path, out: Path) -> dict[str, object]:
    """Its evaluation of the replies, and its comparison with the teacher's samples."""
    task, score = f"our_{name}", TASKS[name][1]
    files = {model: export / f"{model}_samples_{name}.jsonl" for model in ("before", "teacher")}
    rows = [json.loads(line) for line in files["before"].read_text().splitlines()]
    tracker = EvaluationTracker(output_path=str(out))
    results = simple_evaluate(
        SaysAgain({row["doc_id"]: row["filtered_resps"] for row in rows}),
        tasks=[task],
        task_manager=TaskManager(include_path=str(out / "tasks")),
        evaluation_tracker=tracker,
        baseline=str(files["teacher"]),
    )
    told, samples = results["results"][task], results.pop("samples")
    scores = {sample["doc_id"]: sample[score] for sample in samples[task]}
    tracker.save_results_aggregated(results, samples, datetime_str="now")
    tracker.save_results_samples(task_name=task, samples=samples[task])
    return {
        "score": told[f"{score},none"],
        "scores": scores,
        "read": {model: load_baseline(str(path), task)[0] for model, path in files.items()},
        **{key: value for key, value in told.items() if key.startswith("paired_")},
    }


def main(export: Path, data: Path, out: Path) -> None:
    """Writes what is told of each task."""
    for name in TASKS:
        write_task(name, data, out / "tasks")
    told = {name: evaluate(name, export, out) for name in TASKS}
    (out / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
