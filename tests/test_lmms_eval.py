"""A real lmms-eval reads the samples of a run, scores the same questions alike, and we read what it logs.

`make test-lmms-eval`, which installs it in an environment of its own.
"""

import json
import os
import subprocess
from pathlib import Path

import datasets
import pytest
import scipy.stats

from conftest import replace_levelling
from makers import speckle
from projects import configure, done, table

pytestmark = pytest.mark.evaluator
SIDE = Path(__file__).parent / "lmms_eval_side.py"
TEN = 10
QUESTIONS = {
    "textvqa": [
        (["stop"] * TEN, "Stop."),
        (["two"] * 6 + ["2"] * 4, "2"),
        (["halt"] * 7 + ["stop"] * 3, "the stop"),
        (["halt"] * 8 + ["stop"] * 2, "STOP"),
        (["mcdonald's"] * 4 + ["burger"] * 6, "mcdonald 's"),
        (["new york,ny"] * 4 + ["new york ny"] + ["usa"] * 5, "new york, ny"),
        (["tea"] * TEN, "nothing"),
    ],
    "chartqa": [
        (["62%"], "0.62"),
        (["62%"], "62"),
        (["2010"], "2014"),
        (["12"], "12.7"),
        (["0"], "0.0"),
        (["Yes"], "yes"),
        (["Yes"], "Yes."),
        (["1,234"], "1234"),
    ],
    "docvqa": [
        (["ITC Limited", "itc"], "itc  limited"),
        (["abcd"], "abXY"),
        (["abcd"], "abXYZ"),
        (["12 May 1990", "May 1990"], "12 May 1991"),
        (["0.28"], "dog" + " " * 55 + "0.28"),
        (["$ 4.50"], "nothing"),
    ],
}
"""Answers, and what the student says: where scorers of these benchmarks are known to differ (docs/benchmarks.md)."""
METRICS = {
    "textvqa": "textvqa_accuracy",
    "chartqa": "chartqa_relaxed_accuracy",
    "docvqa": "docvqa_anls",
}


def rows_of(task: str) -> list[dict[str, object]]:
    """The rows of a copy on the hub, in the columns of `lmms-lab/textvqa`, `lmms-lab/ChartQA` and `lmms-lab/DocVQA`."""
    rows = []
    for number, (answers, _) in enumerate(QUESTIONS[task]):
        row: dict[str, object] = {"question": asked(task, number)}
        if task == "chartqa":
            row |= {"type": "augmented_test" if number % 2 else "human_test", "answer": answers[0]}
        else:
            row |= {"question_id" if task == "textvqa" else "questionId": str(number), "answers": answers}
        rows.append(row)
    return rows


def asked(task: str, number: int) -> str:
    return f"What does {task} say in place {number}?"


def save(task: str, folder: Path) -> None:
    """The task's test split as the library `datasets` keeps it, with pictures."""
    pictures = [str(speckle(folder / f"{task}-{number}.png", seed=number)) for number in range(len(QUESTIONS[task]))]
    columns = {key: [row[key] for row in rows_of(task)] for key in rows_of(task)[0]}
    split = datasets.Dataset.from_dict({"image": pictures, **columns}).cast_column("image", datasets.Image())
    datasets.DatasetDict({"test" if task == "chartqa" else "validation": split}).save_to_disk(folder / task)


def write_models(project: Path) -> None:
    """A student that replies as above, and a teacher that is right but for the first question of each task."""
    for model in ("student", "teacher"):
        path = table(project / f"{model}.json", [])
        said = json.loads(path.read_text())["replies"]
        for task, questions in QUESTIONS.items():
            for number, (answers, reply) in enumerate(questions):
                text = answers[0] if model == "teacher" and number else reply
                said.insert(0, {"image": "*", "contains": asked(task, number), "text": text})
        path.write_text(json.dumps({"replies": said}))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A run that is finished, on three benchmarks, and its samples."""
    project = tmp_path_factory.mktemp("project")
    for word in ("stop", "exit", "open"):
        speckle(project / "pool" / f"{word}.png", seed=ord(word[0]))
    for task in QUESTIONS:
        save(task, project / "data")
    write_models(project)
    configure(project, tasks={task: {"images": "pool", "test": f"data/{task}"} for task in QUESTIONS})
    with pytest.MonkeyPatch.context() as patch:
        replace_levelling(patch)
        done("run", project / "run.yaml")
    done("export", project / "runs" / "a", "--format", "lmms-eval")
    return project


@pytest.fixture(scope="module")
def told(project) -> dict[str, dict]:
    """What lmms-eval says of each task."""
    command = [os.environ["PARITYALIGN_LMMS_EVAL"], SIDE, project / "runs/a/exports/lmms-eval", project / "data"]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run([*command, project / "out"], env=offline, cwd=project, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads((project / "out" / "told.json").read_text())


def ours(project: Path, model: str, task: str) -> dict[str, float]:
    """The scores in our samples, by lmms-eval's numbers of the questions."""
    path = project / "runs/a/exports/lmms-eval" / f"{model}_samples_{task}.jsonl"
    return {str(row["doc_id"]): row["score"] for row in map(json.loads, path.read_text().splitlines())}


@pytest.mark.parametrize("task", QUESTIONS)
def test_its_reader_of_baselines_reads_every_sample_and_its_score(project, told, task):
    for model in ("before", "teacher"):
        assert told[task]["read"][model] == ours(project, model, task)
        assert len(told[task]["read"][model]) == len(QUESTIONS[task])


@pytest.mark.parametrize("task", QUESTIONS)
def test_its_own_task_scores_each_answer_as_we_do(project, told, task):
    assert told[task]["scores"] == pytest.approx(ours(project, "before", task))
    said = json.loads((project / "runs/a/scores.json").read_text())["tasks"][task]
    assert said["metric"] == METRICS[task]
    assert 100 * told[task]["score"] == pytest.approx(said["before"]["score"], abs=1e-4)
    assert 0 < told[task]["score"] < 1


@pytest.mark.parametrize("task", QUESTIONS)
def test_its_paired_test_compares_a_model_with_the_samples_of_the_run(project, told, task):
    before, teacher = (ours(project, model, task).values() for model in ("before", "teacher"))
    assert told[task]["paired_baseline_score"] == pytest.approx(100 * sum(teacher) / len(teacher))
    expected = scipy.stats.ttest_rel([*before], [*teacher]).pvalue
    assert told[task]["paired_pvalue"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("task", ["chartqa", "docvqa"])
def test_what_it_logs_of_the_same_answers_is_scored_here_as_there(project, told, task):
    (logged,) = (project / "out").glob(f"*_samples_our_{task}.jsonl")
    again = json.loads(done("score", METRICS[task], logged).splitlines()[-1])
    assert (again["mean"], again["count"]) == (pytest.approx(told[task]["score"], abs=1e-6), len(QUESTIONS[task]))
