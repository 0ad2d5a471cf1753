"""A real server: the bundled teacher behind `transformers serve` says what the bundled teacher says in this process.

Left out of the ordinary suite, since the server alone takes longer to start than a test may take: `make demo-http`.
PICTURES=20 makes the second test small; by default it is the whole demo.
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import psutil
import pytest
import yaml

from parityalign.cli.run_commands import DEMO_CONFIG
from parityalign.config.engine import EngineSettings, Hosting
from parityalign.config.loading import LoadingSettings
from parityalign.config.run_yaml import load_config
from parityalign.config.serving import ServerSettings
from parityalign.core.interfaces import Decoding, Request
from parityalign.core.layout import EMBEDDED_MODELS
from parityalign.core.records import Pair, Verdict
from parityalign.demo import generate
from parityalign.demo.worlds import WORLDS
from parityalign.engines import AnswerStore, connect
from parityalign.models.open import load_model
from parityalign.pipeline.pipeline import align
from parityalign.pipeline.preflight import open_run_folder
from parityalign.report.files import read_records
from parityalign.tasks import load_task

pytestmark = pytest.mark.served
SECONDS_TO_START = 300


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Serves the bundled teacher in its own process, in the precision that a local model has on a CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path_factory.mktemp("served") / "log"
    with log.open("wb") as out:
        command = [str(Path(sys.executable).with_name("transformers")), "serve", "teacher", *options]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        server = subprocess.Popen(command, cwd=EMBEDDED_MODELS, env=environment, stdout=out, stderr=out)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1#teacher"
    finally:
        server.terminate()
        server.wait()


def wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and server.poll() is None:
        try:
            httpx2.get(url).raise_for_status()
        except httpx2.TransportError:
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"the server did not start:\n{log.read_text()[-2000:]}")


def draw(folder: Path, pictures: int) -> None:
    generate.write_demo_data(folder, 0, lambda *_: None, pictures=pictures)


def test_greedy_replies_are_those_of_the_local_model_token_for_token(address, tmp_path):
    draw(tmp_path, 3)
    requests = [
        Request(str(path), prompt)
        for name in WORLDS
        for path in sorted((tmp_path / "pool" / name).iterdir())
        for task in [load_task(name, kinds=False)]
        for prompt in (task.annotate_prompt, task.answer_prompt.format(question="What is it?"))
    ]
    remote = connect(address, LoadingSettings(), ServerSettings(), AnswerStore())
    served, local = (model.generate(requests, Decoding(32)) for model in (remote, load_model("embedded:teacher")))
    assert served == local and len(set(local)) > len(requests) / 3


def test_a_run_starts_the_server_itself_and_again_when_it_is_killed(tmp_path):
    draw(tmp_path, 3)
    others = {*psutil.Process().children()}
    pictures = sorted((tmp_path / "pool" / "textvqa").iterdir())
    requests = [Request(str(path), load_task("textvqa").annotate_prompt) for path in pictures]
    said: list[str] = []
    hosting = Hosting(EngineSettings(), tmp_path / "logs", said.append, 32)
    loading = LoadingSettings(dtype="float32")
    model = connect(f"transformers:{EMBEDDED_MODELS / 'teacher'}", loading, ServerSettings(), AnswerStore(), hosting)
    try:
        first = model.generate(requests, Decoding(32))
        (watcher,) = {*psutil.Process().children()} - others
        watcher.children()[0].kill()
        second = model.generate(requests, Decoding(32))
    finally:
        model.close()
    assert {*psutil.Process().children()} <= others
    assert first == second == load_model("embedded:teacher", loading).generate(requests, Decoding(32))
    assert any("started again (1 of 3)" in line for line in said)


def test_the_demo_over_a_server_has_the_pairs_and_verdicts_of_the_local_demo(address, tmp_path):
    """At temperature 0: a draw's noise is added to a local model's scores, which no server shows."""
    pictures = int(os.environ.get("PICTURES", generate.POOL_PICTURES))
    draw(tmp_path / "data", pictures)
    found = {teacher: aligned(tmp_path, teacher) for teacher in (address, "embedded:teacher")}
    assert found[address] == found["embedded:teacher"]
    pairs, verdicts = found[address]
    assert len(pairs) == len(verdicts) > 2 * pictures and len(set(verdicts)) >= 3


def aligned(folder: Path, teacher: str) -> tuple[list, list]:
    """Pairs and verdicts of the demo under a teacher, whose name is part of no comparison."""
    said = yaml.safe_load(DEMO_CONFIG.read_text())
    for data in said["tasks"].values():
        data.update({key: f"../{data[key]}" for key in ("images", "test")})
    said |= {"teacher": teacher, "annotate": said["annotate"] | {"pairs_per_image": 1, "temperature": 0}}
    run = folder / ("served" if teacher.startswith("http") else "local")
    run.mkdir()
    (run / "demo.yaml").write_text(yaml.safe_dump(said))
    with open_run_folder(
        load_config(run / "demo.yaml").model_copy(update={"run": run / "run"}), lambda *_: None
    ) as made:
        for _ in align(made):
            pass
    pairs = list(read_records(run / "run/pairs/pairs.jsonl", Pair))
    verdicts = list(read_records(run / "run/verdicts/verdicts.jsonl", Verdict))
    return (
        [pair.model_copy(update={"pair_id": "", "teacher": ""}) for pair in pairs],
        [(verdict.verdict, verdict.student_text, verdict.teacher_text) for verdict in verdicts],
    )
