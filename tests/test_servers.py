"""Servers that a run starts: found, started, asked, restarted within bounds, told about, and never left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from base64 import b64decode
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from makers import draw
from parityalign.config import EngineSettings, Hosting, LoadingSettings, ServerSettings, read_config
from parityalign.config.backend import Backend, backend_of
from parityalign.core import EMBEDDED_MODELS, Decoding, Request, UserError, WorkFailed
from parityalign.core.manifests import read_manifest
from parityalign.core.registry import load_part
from parityalign.engines import AnswerStore, connect
from parityalign.models.backends._images import data_url
from parityalign.models.open import fingerprint
from parityalign.models.servers import process, started
from parityalign.models.servers.program import length_of
from programs import noted, nvidia_smi, program
from projects import WORDS, configure, done, parityalign, refusal
from serving import reply, serving

MODEL = f"vllm:{EMBEDDED_MODELS / 'teacher'}"
GREEDY = Decoding(8)


class Asked:
    """A model behind a program that stands in for vLLM, and what was told of it."""

    def __init__(
        self,
        folder: Path,
        loading: LoadingSettings | None = None,
        at_once: int | None = None,
        kind: str = "vllm",
        **engine: object,
    ) -> None:
        self.folder, self.said = folder, []
        server = ServerSettings(backoff=0.001, timeout=20, max_concurrency=at_once)
        settings = EngineSettings(program=folder / kind, **engine)
        hosting = Hosting(settings, folder / "logs", self.said.append, 96)
        model = f"{kind}:{EMBEDDED_MODELS / 'teacher'}"
        self.model = connect(model, loading or LoadingSettings(), server, AnswerStore(), hosting)
        self.picture = str(draw(folder / "red.png", size=(30, 20)))

    def generate(self, count: int = 3) -> list[str]:
        return self.model.generate([Request(self.picture, f"question {number}") for number in range(count)], GREEDY)

    def refused(self) -> str:
        with pytest.raises(WorkFailed) as found:
            self.generate()
        self.model.close()
        return str(found.value)


@pytest.fixture
def ask(tmp_path):
    """Makes the model; ends its server whatever happens."""
    made: list[Asked] = []

    def make(loading: LoadingSettings | None = None, engine: dict | None = None, **told: object) -> Asked:
        program(tmp_path, (engine or {}).get("kind", "vllm"), **told)
        made.append(Asked(tmp_path, loading, **(engine or {})))
        return made[-1]

    yield make
    for each in made:
        each.model.close()


@pytest.fixture
def vllm():
    return load_part("backends", "vllm", Backend).serve


@pytest.fixture(autouse=True)
def looking_often(monkeypatch):
    monkeypatch.setattr(started, "_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr(started, "_LONGEST_LOOK", 0.5)


def alive(folder: Path) -> list[int]:
    """The processes that the program was, and had, which have not ended."""
    return [number for number in map(int, noted(folder, "pids")) if is_alive(number)]


def is_alive(number: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    return False


def questions(folder: Path) -> list[str]:
    """What was asked, without what tests whether pictures are seen."""
    return [text for text, _ in map(json.loads, noted(folder, "asked")) if text.startswith("question")]


# ---- starting, asking, ending ----


def test_a_server_is_started_when_something_is_asked_and_ended_with_its_children(ask, tmp_path):
    asked = ask(child=True)
    assert not noted(tmp_path, "started")
    assert [text.rpartition(" ")[0] for text in asked.generate()] == ["question 0", "question 1", "question 2"]
    assert len(asked.generate(1)) == 1 and len(noted(tmp_path, "started")) == 1
    assert len(alive(tmp_path)) == 2
    asked.model.close()
    assert not alive(tmp_path)
    asked.generate(1)
    assert len(noted(tmp_path, "started")) == 2


def test_a_server_that_does_not_end_when_asked_to_is_killed(ask, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "GRACE", 0.2)
    asked = ask(stubborn=True)
    asked.generate(1)
    asked.model.close()
    assert not alive(tmp_path)


PARENT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_servers import Asked
asked = Asked(Path({folder!r}))
asked.generate(1)
print("asked", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_nothing_is_left_of_a_server_whose_run_is_killed(tmp_path, by):
    program(tmp_path, child=True)
    code = PARENT.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        assert run.stdout.readline() == b"asked\n"
        assert len(alive(tmp_path)) == 2
        run.send_signal(by)
        run.wait()
    end = time.monotonic() + 15
    while alive(tmp_path) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(tmp_path)


def test_the_server_is_told_what_the_run_needs(ask, tmp_path):
    loading = LoadingSettings(dtype="bfloat16", max_pixels=400, remote_code=True, thinking_tokens=5)
    engine = {"gpu_memory_utilization": 0.5, "tensor_parallel": 2, "data_parallel": 3, "extra": ["--max-num-seqs", 8]}
    ask(loading, {**engine, "max_length": 77}).generate(1)
    given = json.loads(noted(tmp_path, "started")[0])
    said = dict(zip(given, given[1:], strict=False))
    assert given[:2] == ["serve", str(EMBEDDED_MODELS / "teacher")] and said["--host"] == "127.0.0.1"
    assert said["--dtype"] == "bfloat16" and said["--max-model-len"] == "77" and "--trust-remote-code" in given
    assert json.loads(said["--limit-mm-per-prompt"])["image"] == 1
    assert (said["--tensor-parallel-size"], said["--data-parallel-size"]) == ("2", "3")
    assert said["--gpu-memory-utilization"] == "0.5" and given[-2:] == ["--max-num-seqs", "8"]


def test_pictures_are_sent_no_larger_than_the_setting(ask, tmp_path):
    ask().generate(1)
    whole = json.loads(noted(tmp_path, "asked")[-1])[1]
    ask(LoadingSettings(max_pixels=6)).generate(1)
    assert json.loads(noted(tmp_path, "asked")[-1])[1] < whole


@given(width=st.integers(1, 60), height=st.integers(1, 60), most=st.integers(1, 2000))
def test_a_scaled_picture_has_no_more_pixels_and_the_same_shape(tmp_path_factory, width, height, most):
    path = draw(tmp_path_factory.getbasetemp() / "scaled.png", size=(width, height))
    with Image.open(BytesIO(b64decode(data_url(path, most).partition(",")[2]))) as sent:
        assert sent.width * sent.height <= most
        if width * height <= most:
            assert sent.size == (width, height)
        elif min(sent.size) > 4:
            assert sent.width / sent.height == pytest.approx(width / height, rel=0.3)


@pytest.mark.parametrize("setting", [{"quantise": "4bit"}, {"device_map": "auto"}, {"attention": "eager"}])
def test_settings_of_loading_that_a_server_does_not_take_are_refused(tmp_path, setting):
    program(tmp_path)
    engine = EngineSettings(program=tmp_path / "vllm")
    with pytest.raises(UserError, match=f"loading has no {next(iter(setting))}"):
        backend_of(MODEL).serve.check(str(EMBEDDED_MODELS / "teacher"), LoadingSettings(**setting), engine)


def test_the_longest_question_is_what_a_run_can_come_to_and_never_more_than_the_model_takes(tmp_path):
    def length(config: dict, **loading: object) -> int | None:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return length_of(tmp_path, LoadingSettings(**loading), 100)

    long = {"text_config": {"max_position_embeddings": 131072}, "vision_config": {"max_position_embeddings": 576}}
    assert length({"max_position_embeddings": 500}) == 500
    assert 16_484 < length(long) < 20_000
    assert 100 + 1_000_000 / 28**2 < length(long, max_pixels=1_000_000) < length(long)
    assert length({}) is None


# ---- what goes wrong ----


@pytest.mark.parametrize(
    ("says", "advice"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "engine.gpu_memory_utilization"),
        (
            "ValueError: Free memory on device (1/80 GiB) on startup is less than desired GPU memory utilization",
            "Something",
        ),
        ("ValueError: Model architectures ['New'] are not supported for now.", "does not know the model"),
        ("ValueError: ... max seq len (128000), (9 GiB KV cache is needed, which is larger", "engine.max_length"),
        ("vllm: error: unrecognized arguments: --generation-config", "does not take these options"),
        ("(Worker pid=3) ERROR 11-26 [executor.py:1] RuntimeError: Unsupported attention configuration", ""),
        ("RuntimeError: Failed to infer device type", "finds no GPU"),
        ("[parityalign] the server was ended by signal 9", "It was killed"),
    ],
)
def test_what_a_server_says_when_it_ends_is_understood(vllm, says, advice):
    line, meant = vllm.meaning(
        ["config: trust_remote_code=False", says, "RuntimeError: Engine core initialization failed."]
    )
    assert line == says and advice in meant


def test_a_server_that_ends_at_once_is_told_in_its_words_and_ours_and_not_started_again(ask, tmp_path):
    says = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    said = ask(says=["some", says, "RuntimeError: Engine core initialization failed.\x1b[2J"]).refused()
    assert f"It says: {says}" in said and "Lower engine.gpu_memory_utilization" in said
    assert "ended before it was ready" in said and "Engine core initialization failed.\\x1b[2J" in said
    assert str(tmp_path / "logs" / "vllm.log") in said and "\x1b" not in said
    assert len(noted(tmp_path, "started")) == 1 and not alive(tmp_path)


def test_a_server_that_never_answers_is_given_up_in_time(ask, tmp_path):
    asked = ask(engine={"start_timeout": 0.5}, never_ready=True)
    assert "was not ready after 0.5 s (engine.start_timeout)" in asked.refused()
    assert not alive(tmp_path)


@pytest.mark.slow
def test_where_a_port_is_taken_another_is_tried(ask, tmp_path, monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ports = iter([other.getsockname()[1]])
        monkeypatch.setattr(started, "_free_port", lambda free=started._free_port: next(ports, None) or free())
        assert len(ask().generate(1)) == 1
    assert len(noted(tmp_path, "started")) == 2
    assert "Address already in use" in (tmp_path / "logs" / "vllm.log").read_text()


def test_another_server_that_has_the_port_is_asked_nothing_however_well_it_is(ask, tmp_path, monkeypatch):
    """`transformers serve` gives its model no name of ours, by which it could be told from another one."""

    async def says_yes(body, before):
        return reply("yes")

    with serving(says_yes) as other:
        ports = iter([urlsplit(other.url).port])
        monkeypatch.setattr(started, "_free_port", lambda free=started._free_port: next(ports, None) or free())
        assert [text.rpartition(" ")[0] for text in ask(engine={"kind": "transformers"}).generate(1)] == ["question 0"]
    assert not other.asked and len(noted(tmp_path, "started")) == 2


@pytest.mark.parametrize(
    "says",
    [
        "(EngineCore_DP0 pid=3) WARNING [parallel.py:746] Address already in use. Retrying with a new port.",
        "INFO [network_utils.py:248] Port 29500 is already in use, trying port 29501",
    ],
)
def test_a_server_that_looks_for_another_port_itself_has_not_ended_for_that(vllm, says):
    memory = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    assert not vllm.is_about_the_port([says, memory])
    assert vllm.meaning([says, memory])[0] == memory


def test_a_second_run_on_a_gpu_is_told_what_is_free_who_holds_the_rest_and_what_to_do(ask, tmp_path, monkeypatch):
    other = psutil.Process(os.getppid())
    gpus = ["GPU-a, 0, NVIDIA H100, 1434, 80000, 81559", "GPU-b, 1, NVIDIA H100, 81000, 4, 81559"]
    nvidia_smi(tmp_path, gpus, [f"GPU-a, {other.pid}, VLLM::EngineCore, 73728"])
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    says = (
        "ValueError: Free memory on device cuda:0 (1.4/79.65 GiB) on startup is less than desired GPU memory "
        "utilization (0.9, 71.68 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
    )
    said = ask(says=[says]).refused()
    assert f"It says: {says}" in said and len(noted(tmp_path, "started")) == 1
    assert "GPU 0 (NVIDIA H100): 1.4 of 79.6 GiB free; 72.0 GiB held by process " in said
    assert f"{other.pid} of {other.username()} (VLLM::EngineCore)" in said
    assert "6.1 GiB held by processes that nvidia-smi does not name" in said
    assert "GPU 1 (NVIDIA H100): 79.1 of 79.6 GiB free\n" in said
    assert "wait until it has ended" in said and "CUDA_VISIBLE_DEVICES" in said
    assert "lower engine.gpu_memory_utilization" in said


@pytest.mark.slow
def test_a_server_that_dies_is_started_again_and_nothing_is_asked_twice_or_lost(ask, tmp_path):
    asked = ask(engine={"at_once": 1}, dies_after=[4, 11])
    found = asked.generate(20)
    assert [text.rpartition(" ")[0] for text in found] == [f"question {number}" for number in range(20)]
    assert sorted(questions(tmp_path)) == sorted(f"question {number}" for number in range(20))
    assert len(noted(tmp_path, "started")) == 3
    assert any("started again (2 of 3)" in line for line in asked.said)
    assert any("ended while it was asked" in line and "signal 9" in line for line in asked.said)


@pytest.mark.slow
def test_with_many_questions_in_flight_only_those_are_asked_again(ask, tmp_path):
    found = ask(dies_after=[20]).generate(60)
    assert [text.rpartition(" ")[0] for text in found] == [f"question {number}" for number in range(60)]
    assert 60 <= len(questions(tmp_path)) < 120


def test_a_server_that_dies_of_its_first_question_is_not_started_again(ask, tmp_path):
    said = ask(dies_after=[0]).refused()
    assert "ended while it was asked" in said and "answered nothing yet" in said
    assert len(noted(tmp_path, "started")) == 1 and not alive(tmp_path)


@pytest.mark.slow
def test_a_server_that_dies_again_and_again_is_given_up(ask, tmp_path):
    said = ask(engine={"max_restarts": 2, "at_once": 1}, dies_after=[2, 3, 4]).refused()
    assert (
        "ended while it was asked" in said and "engine.max_restarts is 2" in said and "Answers so far are kept" in said
    )
    assert len(noted(tmp_path, "started")) == 3 and not alive(tmp_path)


# ---- which program ----


def test_the_program_is_that_of_the_setting_then_of_the_variable_then_on_path(tmp_path, monkeypatch, vllm):
    places = {name: program(tmp_path / name) for name in ("setting", "variable", "path")}
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}{os.pathsep}{os.environ['PATH']}")
    assert vllm.find(EngineSettings()) == places["path"]
    monkeypatch.setenv("PARITYALIGN_VLLM", str(places["variable"]))
    assert vllm.find(EngineSettings()) == places["variable"]
    assert vllm.find(EngineSettings(program=places["setting"])) == places["setting"]
    assert vllm.found(EngineSettings()) == f"vllm 0.99.1: {places['variable']}"


def test_no_program_is_refused_with_how_to_install_it_and_that_beside_this_python_does_not_count(
    tmp_path, monkeypatch, vllm
):
    own = program(tmp_path / "own")
    monkeypatch.setattr(sys, "executable", str(own.with_name("python")))
    monkeypatch.setenv("PATH", str(own.parent))
    with pytest.raises(UserError, match="no vllm was found on PATH(?s:.*)environment of its own: .*pip install vllm"):
        vllm.find(EngineSettings())
    with pytest.raises(UserError, match="nowhere, which engine.program or PARITYALIGN_VLLM names, is not there"):
        vllm.find(EngineSettings(program=tmp_path / "nowhere"))


@pytest.mark.parametrize("given", ["--port=1", "--served-model-name", "--api-key=x", "--hf-token"])
def test_arguments_that_the_run_gives_itself_and_secrets_are_refused(given):
    with pytest.raises(ValueError, match="gives to the server itself|looks like a secret"):
        EngineSettings(extra=[given])


def test_a_server_does_not_see_the_packages_of_this_python_nor_a_key_that_it_would_ask_for(
    ask, tmp_path, monkeypatch, vllm
):
    monkeypatch.setenv("PYTHONPATH", "/here")
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    given = vllm.environ()
    assert not {"PYTHONPATH", "VLLM_API_KEY"} & given.keys()
    assert given["CUDA_VISIBLE_DEVICES"] == "3" and given["VLLM_NO_USAGE_STATS"] == "0"


# ---- what answers belong to ----


def test_answers_belong_to_files_kind_of_server_and_options_that_change_them():
    def of(spec: str = MODEL, **engine: object) -> str:
        return fingerprint(spec, LoadingSettings(), ServerSettings(), EngineSettings(**engine))

    same = of(tensor_parallel=2, gpu_memory_utilization=0.5, max_length=9, extra=["--max-num-seqs", "4"])
    assert of() == same != of(MODEL.replace("vllm:", "hf:"))
    changed = {of(extra=["--quantization", value]) for value in ("fp8", "awq")} | {of(extra=["--quantization=fp8"])}
    assert len(changed | {of()}) == 4


@pytest.mark.parametrize("argument", ["--chat-template=./{}/t.jinja", "--chat-template={}/t.jinja"])
def test_a_file_in_the_arguments_lies_beside_the_settings_and_counts_by_its_content(tmp_path, argument):
    said = {"run": "run", "teacher": MODEL, "student": MODEL, "tasks": {"textvqa": {"images": "pool"}}}
    seen = []
    for folder, content in (("a", "one"), ("b", "one"), ("b", "two")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "t.jinja").write_text(content)
        said["engine"] = {"extra": [argument.format(folder), "--chat-template", f"./{folder}/t.jinja"]}
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(said))
        engine, place = read_config(tmp_path / "run.yaml").engine, str(tmp_path / folder / "t.jinja")
        assert engine.extra == (f"--chat-template={place}", "--chat-template", place)
        seen.append(fingerprint(MODEL, LoadingSettings(), ServerSettings(), engine))
    assert seen[0] == seen[1] != seen[2]


# ---- in a run ----


@pytest.mark.slow
def test_a_run_asks_through_a_server_and_ends_it(project, tmp_path):
    """The student, which is only asked here, is another kind; both stages of the teacher are one server's."""
    stands_in = program(tmp_path / "bin", reply="Question: What is written? Answer: stop")
    path = configure(project, teacher=MODEL, engine={"program": str(stands_in)}, server={"backoff": 0.001})
    said = done("run", path, "--until", "identify")
    assert f"{MODEL} is ready after" in said
    assert (project / "runs/a/server/vllm.log").is_file() and not alive(tmp_path / "bin")
    asked = len(noted(tmp_path / "bin", "asked"))
    assert "up to date" in done("run", path, "--until", "identify")
    assert len(noted(tmp_path / "bin", "asked")) == asked >= len(WORDS)


def test_without_the_program_a_run_does_not_begin(project, monkeypatch):
    monkeypatch.setenv("PATH", str(project))
    assert "no vllm was found" in refusal("run", configure(project, teacher=MODEL))
    assert not (project / "runs" / "a").exists()


@pytest.mark.slow
def test_doctor_tells_which_program_serves_a_model_or_that_there_is_none(project, tmp_path, monkeypatch):
    stands_in = program(tmp_path / "bin")
    said = done("doctor", configure(project, teacher=MODEL, engine={"program": str(stands_in)}))
    assert f"served by vllm 0.99.1: {stands_in}" in said
    monkeypatch.setenv("PATH", str(project))
    assert "problem: no vllm was found" in parityalign("doctor", configure(project, teacher=MODEL)).output


@pytest.mark.slow
def test_where_wanted_the_first_answers_are_compared_with_those_of_this_process(project, tmp_path):
    stands_in = program(tmp_path / "bin", reply="Question: What is written? Answer: stop")
    engine = {"program": str(stands_in), "compare": 2}
    said = done("run", configure(project, teacher=MODEL, engine=engine), "--until", "annotate")
    assert f"{MODEL}: 0 of 2 greedy answers equal those of the model in this process" in said
    assert said.count("server: 'Question: What is written? Answer: stop'") == 2
    facts = read_manifest(project / "runs/a/pairs")["models"]["teacher"]
    size = int(facts.pop("parameters"))
    assert facts == {"engine": "vllm 0.99.1", "greedy answers as here": "0 of 2"}
    assert size == pytest.approx(5_708_704, rel=1e-3)  # and the statistics of batch norms
