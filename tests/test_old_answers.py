"""A run folder of version 0.1, which had no answer store, goes on without asking anything again."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from makers import mute, speckle
from parityalign.config import TaskData, read_config
from parityalign.core import HALF_WRITTEN, content_id
from parityalign.data import image_id
from parityalign.engines import AnswerStore
from parityalign.models.backends import fake
from parityalign.pipeline import dry_steps
from parityalign.tasks import task_of
from projects import WORDS, configure, done, refusal
from serving import prompt_of, reply, serving
from test_old_runs import old, pairs_of, without_old_settings  # noqa: F401 - `old` is a fixture


@pytest.fixture
def asked(monkeypatch):
    """Questions to fake models, by the name of their file."""
    counts = Counter()
    generate = fake.FakeModel.generate

    def counted(model, requests, decoding):
        counts[Path(model.name).name] += len(requests)
        return generate(model, requests, decoding)

    monkeypatch.setattr(fake.FakeModel, "generate", counted)
    return counts


def ready(project, **changes):
    for path in (project / "run.yaml", project / "runs" / "a" / "run.yaml"):
        without_old_settings(path)
        said = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**said, **changes}))
    return project / "run.yaml"


def test_models_in_this_process_are_asked_nothing_that_the_old_files_answer(old, asked, trainable):  # noqa: F811
    pairs = pairs_of(old / "runs" / "a")
    config = ready(old)
    steps = {step.stage: step for step in dry_steps(read_config(config), mute)}
    assert steps["annotate"].questions == 0 and not (old / "runs" / "a" / "answers.sqlite").exists()
    output = done("run", config)
    assert "36 answers in the run's files were taken into its answer store" in output
    assert asked.keys() == {"replies.json"}  # the student that was trained again
    assert pairs_of(old / "runs" / "a").keys() == pairs.keys()
    assert "were taken into" not in done("run", config)


def test_answers_to_what_is_asked_otherwise_now_are_not_taken(old, asked, trainable):  # noqa: F811
    said = yaml.safe_load((old / "run.yaml").read_text())
    said["tasks"]["textvqa"]["answer_prompt"] = "Look well. {question}"
    config = ready(old, tasks=said["tasks"])
    for word in WORDS:  # the fakes know what they are asked about
        assert word in (old / "teacher.json").read_text()
    done("run", config)
    assert asked["student.json"] == 16 and asked["teacher.json"] == 4 + 8  # but no pair is written again


def test_answers_about_a_test_picture_that_was_changed_since_are_not_taken(old, asked, trainable):  # noqa: F811
    changed = old / "test" / "train_images" / "stop.jpg"
    speckle(changed, seed=999)
    done("run", ready(old))
    assert asked["student.json"] == asked["teacher.json"] == 1


def test_a_served_teacher_is_asked_nothing_that_the_ledger_answers(old, asked, trainable):  # noqa: F811
    run, task = old / "runs" / "a", task_of("textvqa", TaskData(images="pool", kinds="none"))
    requests = []

    async def script(body, _before):
        requests.append(prompt_of(body))
        return reply("something")

    with serving(script) as served:
        name = f"{served.url}#m"

        def exchange(key, text, stage):
            counts = {"requests": 1, "prompt_tokens": 700, "completion_tokens": 5, "seconds": 0.5, "finish": "stop"}
            return {"key": key, "stage": stage, "model": name, "text": text, "refused": ["seed"], **counts}

        def key(image, prompt, drawn, tokens):
            return content_id(name, image, prompt, drawn, str(tokens))

        rows = []
        for line in (run / "pairs" / "replies.jsonl").read_text().splitlines():
            said = json.loads(line)
            seed = int(content_id(said["image_id"], "textvqa", "0", "0")[:12], 16)
            rows.append(
                exchange(key(said["image_id"], task.annotate_prompt, f"1.0 {seed}", 96), said["raw"], "annotate")
            )
        for line in (run / "pairs" / "pairs.jsonl").read_text().splitlines():
            said = json.loads(line)
            prompt = task.answer_prompt.format(question=said["question"])
            rows.append(exchange(key(said["image_id"], prompt, "greedy", 32), said["answer"], "identify"))
        for word in WORDS:
            image = image_id((old / "test" / "train_images" / f"{word}.jpg").read_bytes())
            prompt = task.answer_prompt.format(question="What is shown?")
            rows.append(exchange(key(image, prompt, "greedy", 32), word, "evaluate, teacher"))
        (run / "server").mkdir()
        (run / "server" / "answers.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows) + '{"torn')
        done("run", ready(old, teacher=name))
        assert requests == [] and asked["student.json"] == 0
        # Without the name the run stays with the model that it began with.
        done("run", ready(old, teacher=name.partition("#")[0]))
        assert requests == []
    manifest = json.loads((run / "pairs" / "manifest.json").read_text())
    assert (manifest["counts"]["pairs"], manifest["servers"][name]["requests"]) == (8, 8)


@pytest.mark.parametrize("served", [False, True])
def test_a_run_of_today_that_lost_its_store_asks_nothing_again(project, asked, trainable, served):
    requests = []

    async def script(body, _before):
        requests.append(prompt_of(body))
        return reply("Question: What is written? Answer: stop" if "Write one" in requests[-1] else str(len(str(body))))

    with serving(script) as server:
        changes = {"teacher": f"{server.url}#m"} if served else {}
        done("run", configure(project, **changes, annotate={"pairs_per_image": 2}))
        assert bool(requests) == served and asked["student.json"]
        (project / "runs" / "a" / "answers.sqlite").unlink()
        requests.clear()
        asked.clear()
        again = {"annotate": {"pairs_per_image": 1}, "identify": {"rule": "metric"}, "evaluate": {"limit": 5}}
        output = done("run", configure(project, **changes, **again))
        assert output.count("done again: ") >= 3
        assert requests == [] and asked["student.json"] == asked["teacher.json"] == 0


def test_a_store_that_a_full_disk_kept_from_being_whole_is_not_put_in_place(project, asked, trainable, monkeypatch):
    done("run", configure(project))
    store = project / "runs" / "a" / "answers.sqlite"
    store.unlink()
    close = AnswerStore.close

    def leave_a_log(one):
        close(one)
        if one.path.name.endswith(HALF_WRITTEN):
            one.path.with_name(f"{one.path.name}-wal").write_bytes(b"the last pages")

    asked.clear()
    again = configure(project, annotate={"batch_size": 3, "pairs_per_image": 1})
    with monkeypatch.context() as full:
        full.setattr(AnswerStore, "close", leave_a_log)
        assert "is the disk full?" in refusal("run", again, status=1)
    assert not store.exists()
    done("run", again)
    assert not asked.total()
