"""A real vLLM that the run starts says what the model says in this process; kills lose nothing and leave nothing.

So does a student that was levelled here: its folder is served as it is.

`make test-vllm VLLM=ENVIRONMENT/bin/vllm`, on a GPU or with vLLM's CPU build; each start takes minutes on a CPU.
"""

import dataclasses
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import torch
import transformers
from PIL import Image

import families
from parityalign.config import LoadingSettings
from parityalign.core.manifests import read_manifest
from parityalign.models import open_processor
from parityalign.training.collator import AnswerCollator, Example
from projects import configure, done

pytestmark = pytest.mark.served
PICTURES, PAIRS = 100, 400
CLI = [sys.executable, "-m", "parityalign"]
PROBES = 2
STEPS = 300
COLOURS = {"red": "apple", "green": "leaf", "blue": "sky", "white": "snow", "black": "coal", "yellow": "sun"}
WRITE = "Reply in this form only. Question: <your question> Answer: <your answer>"
ANSWER = "{question}\nAnswer in one word."
ABOUT_PAIRS = {
    "pairs": {"file": "data/pairs.jsonl", "image_folder": "data"},
    "annotate_prompt": WRITE,
    "answer_prompt": ANSWER,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tiny Qwen2-VL that writes pairs: an untrained one says half characters, which programs show differently."""
    family = next(each for each in families.FAMILIES if each.name == "Qwen2-VL")

    def made(parts: families.Parts) -> transformers.PreTrainedModel:
        rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096}
        text = parts.text(rope_parameters=rope, hidden_size=128, intermediate_size=128, **heads)  # heads of 32
        vision = {"depth": 2, "embed_dim": 64, "hidden_size": 128, "num_heads": 2, "mlp_ratio": 2}
        config = transformers.Qwen2VLConfig(
            text_config=text, vision_config=vision, tie_word_embeddings=True, **parts.qwen_ids()
        )
        return transformers.Qwen2VLForConditionalGeneration(config)

    folder = families.write(tmp_path_factory.mktemp("model") / "tiny", dataclasses.replace(family, model=made))
    taught = transformers.Qwen2VLForConditionalGeneration.from_pretrained(folder)
    teach(taught, folder)
    taught.save_pretrained(folder)
    return folder


def teach(model: transformers.PreTrainedModel, folder: Path) -> None:
    """Trains a model to write pairs and short answers; which ones need not be right."""
    processor = open_processor(str(folder), LoadingSettings())
    collator = AnswerCollator(processor, model.generation_config.eos_token_id, cache_bytes=2**28)
    chance = random.Random(0)
    rows = []
    for place, colour in enumerate([*COLOURS] * 4):
        path = str(picture(folder.parent / f"{place}.png", place))
        rows.append(Example(path, WRITE, f"Question: what is {colour} there? Answer: {COLOURS[colour]}"))
        for _ in range(3):
            asked = ANSWER.format(question=f"What is spot {chance.randrange(PAIRS)}?")
            rows.append(Example(path, asked, COLOURS[colour]))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(STEPS):
        loss = model(**collator.plain(chance.sample(rows, 12))).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()


def picture(path: Path, number: int) -> Path:
    """A picture of one of the colours, unlike any other in one place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (56, 84), [*COLOURS][number % len(COLOURS)])
    image.putpixel((number % 56, number // 56), (number % 256, 128, 128))
    image.save(path)
    return path


@pytest.fixture
def project(tmp_path, model, monkeypatch):
    """Pictures that the teacher writes about, and pairs that it is asked."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    pictures = [picture(tmp_path / "data/pool" / f"{number}.png", number) for number in range(PICTURES)]
    names = [*COLOURS]
    rows = [
        {
            "image": f"pool/{pictures[number % PICTURES].name}",
            "question": f"What is spot {number}?",
            "answer": names[number % PICTURES % len(names)],
        }
        for number in range(PAIRS)
    ]
    (tmp_path / "data/pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "student.json").write_text(json.dumps({"replies": [{"image": "*", "text": "blue"}]}))
    return tmp_path


def said(project: Path, teacher: str, **task: str) -> Path:
    """The configuration of a run with this teacher, greedily."""
    run = f"runs/{teacher.partition(':')[0]}"
    return configure(
        project,
        run=run,
        teacher=teacher,
        student="fake:student.json",
        tasks={"mine": {**ABOUT_PAIRS, **task}},
        intake={"near_duplicates": False},
        annotate={"temperature": 0, "max_new_tokens": 48},
        identify={"ask_teacher": "all", "max_new_tokens": 16},
        loading={"teacher": {"dtype": "float32"}},
        engine={"extra": ["--enforce-eager", "--max-num-seqs", 8]},
        server={"max_concurrency": 8, "timeout": 60},
    )


def answers(run: Path) -> int:
    """How many answers are kept so far."""
    if not (run / "answers.sqlite").exists():
        return 0
    with closing(sqlite3.connect(f"file:{run / 'answers.sqlite'}?mode=ro", uri=True)) as store:
        try:
            return store.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
        except sqlite3.OperationalError:  # not made yet
            return 0


def servers() -> list[psutil.Process]:
    """Every process of the servers of this test."""
    return [each for each in psutil.process_iter(["cmdline", "status"]) if is_server(each)]


def is_server(process: psutil.Process) -> bool:
    told = process.info["cmdline"] or []
    ours = any("watcher.py" in part for part in told) or "serve" in told or "VLLM::" in " ".join(told)
    return ours and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid()


def wait_until(true, seconds: float, what: str, run: subprocess.Popen | None = None) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert run is None or run.poll() is None, "the run has ended"
        assert time.monotonic() < end, f"{what} within {seconds} s"
        time.sleep(0.2)


def kill_the_server(run: subprocess.Popen) -> None:
    (watcher,) = psutil.Process(run.pid).children()
    (server,) = watcher.children()
    server.kill()


def test_kills_lose_nothing_ask_nothing_twice_leave_nothing_and_answers_are_those_of_this_process(project, model):
    before = servers()
    config = said(project, f"vllm:{model}", images="data/pool")
    run = project / "runs" / "vllm"
    command = [*CLI, "run", str(config), "--until", "identify"]
    with (project / "told").open("wb") as told:
        with subprocess.Popen(command, stdout=told, stderr=told) as first:
            wait_until(lambda: answers(run) > 30, 900, "the first answers", first)
            kill_the_server(first)
            wait_until(
                lambda: answers(run) > 2 * PICTURES + PAIRS + 60, 1800, "answers of the server started again", first
            )
            first.send_signal(signal.SIGKILL)
        wait_until(lambda: servers() == before, 30, "the end of the server whose run was killed")
        kept = answers(run)
        with subprocess.Popen(command, stdout=told, stderr=told) as second:
            wait_until(lambda: answers(run) > kept + 100, 900, "more answers", second)
            kill_the_server(second)
            assert second.wait(1800) == 0, (project / "told").read_text()[-3000:]
    assert servers() == before
    log = (project / "told").read_text()
    assert log.count("It is started again (1 of 3).") == 2

    questions = PICTURES + read_manifest(run / "verdicts")["counts"]["pairs"]
    assert questions > PICTURES + PAIRS  # it wrote pairs, too
    spent = [usage for made in ("pairs", "verdicts") for usage in read_manifest(run / made)["servers"].values()]
    asked = sum(usage["answers"] for usage in spent)
    assert asked == questions + 2 * PROBES  # of two processes
    requests = sum(usage["requests"] for usage in spent)
    assert requests - asked <= 2 * 8  # what was in flight when the server was killed
    assert done("run", config, "--until", "identify").count("up to date") >= 3

    done("run", said(project, f"hf:{model}", images="data/pool"), "--until", "identify")
    here, there = (everything_said(project / "runs" / kind) for kind in ("hf", "vllm"))
    assert here == there and len(here) == questions
    assert len({text for *_, text in here}) > 10


def test_a_student_that_was_levelled_here_answers_there_as_it_does_here(project, model):
    level = {"select": "all", "max_steps": 24, "batch_size": 16, "learning_rate": 1e-3, "allow_high_rate": True}
    here = f"hf:{model}"
    config = configure(project, run="runs/level", teacher=here, student=here, tasks={"mine": ABOUT_PAIRS}, level=level)
    done("run", config, "--until", "level")
    before = servers()
    answers = {}
    for kind in ("hf", "vllm"):
        done("run", said(project, f"{kind}:{project / 'runs' / 'level' / 'student'}"), "--until", "identify")
        answers[kind] = [row["text"] for row in rows_of(project / "runs" / kind / "verdicts" / "teacher.jsonl")]
    assert answers["vllm"] == answers["hf"] and len(answers["hf"]) == PAIRS
    named = [answer in COLOURS for answer in answers["hf"]]
    assert sum(named) > PAIRS / 2  # where the model before said what has the colour
    assert len({*answers["hf"]}) > 3
    assert servers() == before


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def everything_said(run: Path) -> list[tuple[str, str, str]]:
    """The teacher's answers: image, question and text. A pair's own id hangs on who wrote it."""
    files = ("pairs/replies.jsonl", "pairs/pairs.jsonl", "verdicts/teacher.jsonl")
    rows, pairs, answers = (rows_of(run / file) for file in files)
    asked = {pair["pair_id"]: (pair["image_id"], pair["question"]) for pair in pairs}
    wrote = [(row["image_id"], "", row["raw"]) for row in rows]
    return sorted([*wrote, *((*asked[row["item_id"]], row["text"]) for row in answers)])
