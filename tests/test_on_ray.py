"""On a real Ray cluster of this machine: answers are those of one process, whatever ends on the way (make test-ray)."""

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
import pytest

import tiny
from parityalign.config import RaySettings
from parityalign.core import Decoding, WorkFailed
from parityalign.engines import AnswerStore, CachedModel, Cluster, Replicas
from test_replicas import asked, asked_of_the_bundled_student, questions  # noqa: F401 - asked is a fixture
from working import backwards

pytest.importorskip("ray")
pytestmark = pytest.mark.cluster

GREEDY = Decoding(8)


@pytest.fixture(autouse=True)
def none_left():
    """No process of a cluster outlives the test."""
    yield
    gone, left = psutil.wait_procs([each for each in psutil.process_iter() if is_of_ray(each)], timeout=20)
    assert not left, left


def is_of_ray(process):
    try:
        words = " ".join(process.cmdline())
        return process.status() != psutil.STATUS_ZOMBIE and (
            "ray::" in words or "raylet" in words or "gcs_server" in words
        )
    except psutil.Error:
        return False


@pytest.fixture
def head(tmp_path_factory):
    """The address of a cluster that is there, of this machine and two cores."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("ray")
    command = f"start --head --block --port={port} --num-cpus=2 --include-dashboard=false --disable-usage-stats"
    command += f" --node-ip-address=127.0.0.1 --object-store-memory={2**28} --temp-dir={folder}"
    program = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", *command.split()]
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen(program, stdout=log, stderr=log, start_new_session=True)
    for _ in range(600):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert started.poll() is None, (folder / "log").read_text()
        subprocess.run(["sleep", "0.1"], check=True)
    yield f"127.0.0.1:{port}"
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()


def answered(folder, words, told, kept=None, batch_size=1):
    """The replies; `kept` gets the words whose replies were in the store when something was told first."""

    def tell(line):
        if kept is not None and not told:
            kept.update(word for word in words if not model.lacking(questions([word]), decoding=GREEDY))
        told.append(line)

    cluster = Cluster(RaySettings(), tell)
    try:
        replicas = Replicas("backwards", cluster.workplace(partial(backwards, folder), 2), tell, 2)
        model = CachedModel("m", lambda: replicas, AnswerStore())
        said = model.answer(questions(words), decoding=GREEDY, batch_size=batch_size, on_progress=lambda *_: None)
        model.free()
    finally:
        cluster.close()
    return {word: each.not_asked or each.text for word, each in said.items()}


def test_two_share_the_questions_and_nobody_can_tell(tmp_path, asked):  # noqa: F811
    words, told = [f"w{number}" for number in range(40)], []
    assert answered(tmp_path, words, told, batch_size=3) == {word: word[::-1] for word in words}
    assert sorted(word for word, _ in asked()) == sorted(words)
    assert len({process for _, process in asked()}) == 2 and not told


@pytest.mark.parametrize(
    ("ends", "told_of"),
    [("once", "ended by signal 9"), ("actor", "an actor of the cluster ended"), ("cluster", "the Ray cluster is lost")],
)
def test_whatever_is_killed_in_the_middle_nothing_is_lost_or_asked_twice(tmp_path, asked, ends, told_of):  # noqa: F811
    words, told, kept = (
        [*(f"w{number}" for number in range(12)), ends, *(f"v{number}" for number in range(12))],
        [],
        set(),
    )
    assert answered(tmp_path, words, told, kept) == {word: word[::-1] for word in words}
    assert any(told_of in line for line in told) and len(kept) >= 8
    times = Counter(word for word, _ in asked())
    again = {word for word, count in times.items() if count > 1}
    # When the whole cluster goes, replies are lost that were on their way, of at most two batches a replica.
    assert set(times) == set(words) and not again & kept and len(again) <= 4 * (ends == "cluster")


def test_a_question_that_ends_three_processes_is_set_aside(tmp_path):
    words, told = ["a", "b", "deadly", "c", "d"], []
    said = answered(tmp_path, words, told, batch_size=5)
    assert said.pop("deadly") == "declined: 3 processes ended while they were asked this"
    assert said == {word: word[::-1] for word in said}


def test_a_bundled_model_says_and_shows_on_ray_what_it_does_in_one_process(tmp_path, head):
    images = tiny.drawn(tmp_path / "images", 9)
    *one, alone = asked_of_the_bundled_student(tmp_path / "one", images)
    *here, facts = asked_of_the_bundled_student(tmp_path / "here", images, replicas=2, ray={})
    assert here == one and facts == {"before": {**alone["before"], "replicas": "2 on Ray"}}
    *there, _ = asked_of_the_bundled_student(tmp_path / "there", images, ray={"address": head})
    assert there == one  # with pictures that were sent


def test_an_address_that_takes_connections_and_says_nothing_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(WorkFailed, match=f"(?s)no Ray cluster .* at {address}"):
            Cluster(RaySettings(address=address, timeout=15), print).joined()


PARENT = """
import sys
sys.path[:0] = [{tests!r}]
from functools import partial
from pathlib import Path
from parityalign.config import RaySettings
from parityalign.core import Decoding, Request
from parityalign.engines import Cluster, Replicas
from working import backwards

place = Cluster(RaySettings(), print).workplace(partial(backwards, Path({folder!r})), 2)
list(Replicas("m", place, print, 2).answers([Request("", f"w{{number}}") for number in range(5)], Decoding(8), 1))
print("ready", flush=True)
input()
"""


def test_no_process_outlives_a_run_that_is_killed(tmp_path, asked):  # noqa: F811
    code = PARENT.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout.readline() == b"ready\n"
    replicas = {psutil.Process(int(process)) for _, process in asked()}
    assert len(replicas) == 2
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(replicas, timeout=20)
    assert not alive  # and none of Ray's, as after every test
