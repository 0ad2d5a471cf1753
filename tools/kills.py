"""Kills small runs at random moments, resumes them to the end, and compares them with one that nobody killed.

    python tools/kills.py [--kills 200] [--served 50] [--seed 0]

Local: all four tasks and the discrepancy on the embedded models. Served: a server in this process as the teacher.
Every file has to be equal but for times; of the answer store, the answers and signals. A question may be asked again of
the server only if the process that asked it was killed before the answer was on its disk: less than `UNWRITTEN` seconds
after it was given. So none is asked more often than there were kills, and once.
"""

import argparse
import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from random import Random

import yaml

from parityalign.demo.generate import write_demo_data
from parityalign.engines.probe import QUESTION

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from serving import Served, image_of, prompt_of, reply, serving  # noqa: E402

PICTURES = 5
"""In the pool of each task."""
UNWRITTEN = 5.0
"""Seconds in which an answer may not be on the disk yet: it is written five times a second, and disks can be busy."""
MOST = 10
"""Kills in one run, which then may end."""
TASKS = ("textvqa", "stvqa", "chartqa", "okvqa")
WORDS = ("red", "stop", "seven", "a dog", "1999", "left")
SMALL = {
    "annotate": {"pairs_per_image": 2, "max_new_tokens": 32, "batch_size": 4},
    "identify": {"max_new_tokens": 8, "batch_size": 4},
    "level": {"max_steps": 16, "batch_size": 4, "learning_rate": 1.0e-3},
    "evaluate": {"max_new_tokens": 8, "batch_size": 4, "resamples": 100, "speed_questions": 0},
}
SPENT = re.compile(r"[\d,]+ answers, [\d,]+ requests [^<]* in total")
"""What a report says of a server; a kill may cost the answers that were on their way."""
TIMES = re.compile(r"\d{4}-\d\d-\d\d( |T)?(\d\d:\d\d(:\d\d)?)?")
APART = ("events.jsonl", "run.yaml", ".parityalign.json", ".lock", ".lock.pid", "speed/manifest.json")
STORE = "answers.sqlite"
"""With its log, which a kill after the last question leaves; the rows are compared."""
OF_TIMES = ("seal", "servers", "note", "of")
"""Keys of manifests that tell of time, or of how often was asked."""


def main() -> None:
    """Exits with 1 if anything differs or was asked twice."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--served", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as away:
        folder = Path(away)
        write_demo_data(folder / "data", 0, lambda *_: None, pictures=PICTURES)
        local = {"teacher": "embedded:teacher", "discrepancy": {"always": True, "rationales": True}}
        faults += kill_runs(folder, "local", local, given.kills, Random(f"local {given.seed}"))
        with serving(script) as served:
            remote = {"teacher": f"{served.url}#m", "server": {"backoff": 0.01, "max_concurrency": 4}}
            faults += kill_runs(folder, "served", remote, given.served, Random(f"served {given.seed}"), served)
    print("\n".join(faults) or "no run differs, and nothing was asked twice")
    sys.exit(bool(faults))


def kill_runs(
    folder: Path, name: str, settings: Mapping[str, object], kills: int, draw: Random, served: Served | None = None
) -> list[str]:
    """Kills runs with these settings so many times; what differed, in words."""
    if not kills:
        return []
    began = time.monotonic()
    whole = folder / f"{name}-whole"
    if not finishes(configured(folder, whole, settings), None):
        sys.exit(f"{name}: the run that nobody kills does not end well")
    took = time.monotonic() - began
    expected, faults, done, runs = results(whole), [], 0, 0
    while done < kills:
        runs += 1
        run, killed = folder / f"{name}-{runs}", []
        config = configured(folder, run, settings)
        first = len(served.asked) if served else 0
        while not finishes(config, draw.uniform(0, 0.8 * took) if len(killed) < min(MOST, kills - done) else None):
            killed.append(time.monotonic())
        done += len(killed)
        found = [*differences(expected, results(run)), *(repeated(served, first, killed) if served else ())]
        faults += [f"{name}, run {runs}, {len(killed)} kills: {each}" for each in found]
        print(*faults[len(faults) - len(found) :], sep="\n", end="\n" if found else "")
        print(f"{name}: {done} of {kills} kills in {runs} runs, {len(faults)} faults", flush=True)
    return faults


def configured(folder: Path, run: Path, settings: Mapping[str, object]) -> Path:
    """The configuration of a run in a folder of its own."""
    tasks = {task: {"images": f"data/pool/{task}", "test": f"data/test/{task}"} for task in TASKS}
    tasks["stvqa"]["subset"] = "whole"
    path = folder / f"{run.name}.yaml"
    path.write_text(
        yaml.safe_dump({"run": run.name, "student": "embedded:student", "tasks": tasks, **SMALL, **settings})
    )
    return path


def finishes(config: Path, kill_after: float | None) -> bool:
    """Whether a process does the run to its end before it is killed, with those that it started."""
    command = [sys.executable, "-m", "parityalign", "run", str(config)]
    with (config.with_suffix(".log")).open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        status = process.wait(kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    if status:
        sys.exit(f"{config.name} ended with {status}:\n{config.with_suffix('.log').read_text()[-3000:]}")
    return True


def results(run: Path) -> dict[str, object]:
    """What a run came to, without its times and its name."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_file() and name not in APART and not name.startswith(STORE):
            content = path.read_bytes().replace(run.name.encode(), b"RUN")
            found[name] = content
            if path.suffix == ".json" and isinstance(said := json.loads(content), dict):
                found[name] = {key: value for key, value in said.items() if key not in OF_TIMES}
            elif path.suffix in (".html", ".md"):
                found[name] = TIMES.sub("", SPENT.sub("", content.decode()))
    found["answers"], found["signals"] = kept(run / STORE)
    return found


def kept(store: Path) -> Iterator[list[object]]:
    """The answers and the signals of a store."""
    with closing(sqlite3.connect(store)) as file:
        for table, columns in (("answers", "key, model, text, finish, refused"), ("signals", "key, model, content")):
            yield file.execute(f"SELECT {columns} FROM {table} ORDER BY key").fetchall()  # noqa: S608


def differences(expected: Mapping[str, object], found: Mapping[str, object]) -> list[str]:
    """The files that differ."""
    return [f"{name} differs" for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]


async def script(body: dict, _before: int) -> bytes:
    """A teacher whose answers hang on the picture, the prompt and the draw."""
    asked = hashlib.sha256(question_of(body).encode()).digest()
    word = WORDS[asked[0] % len(WORDS)]
    answered[id(body)] = time.monotonic()
    if prompt_of(body) == QUESTION:
        return reply(str(asked[0]))  # the drawn picture is another than the blank one
    return reply(f"Question: What is number {asked[1]}? Answer: {word}" if "Question:" in prompt_of(body) else word)


answered: dict[int, float] = {}
"""When each request was answered, by the identity of its body, all of which the server keeps."""


def question_of(body: dict) -> str:
    """What a request asks: its picture, prompt and draw."""
    return f"{image_of(body)} {prompt_of(body)} {body.get('seed')}"


def repeated(served: Served, first: int, kills: list[float]) -> list[str]:
    """The questions that were asked again although the answer must have been on the disk."""
    last: dict[str, float] = {}
    faults = []
    for body in served.asked[first:]:
        asked = question_of(body)
        if prompt_of(body) == QUESTION:  # the test of whether the server passes pictures on, once in a process
            continue
        if asked in last and not any(0 <= kill - last[asked] <= UNWRITTEN for kill in kills):
            faults.append(f"asked again without need: {prompt_of(body)[:80]!r}")
        last[asked] = answered[id(body)]
    print(f"  {len(last)} questions, {len(served.asked) - first} requests, {len(kills)} kills", flush=True)
    return faults


if __name__ == "__main__":
    main()
