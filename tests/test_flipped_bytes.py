"""A flipped byte in any file of a run folder is noticed, in words, or it changes no result.

The run is a finished one on fake models that show log-probabilities: images from a shard, a test split from Parquet.
"""

import io
import json
import re
import shutil
import tarfile
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import save_file

from parityalign.config import Backend
from parityalign.core import LevelResult, Observation
from parityalign.models.backends import fake
from parityalign.pipeline import run as run_module
from parityalign.pipeline.run_models import RunModels
from projects import WORDS, configure, parityalign

TIMES = re.compile(r'"(seconds|time|written|seconds_\w+)": [^,\n}]*|[0-9:. -]{16,}Z?')
TRIALS = 1
"""Flips in each file; their places are drawn."""


class Shows(fake.FakeModel):
    """A fake model whose log-probabilities depend on the picture and the text."""

    def observe(self, told):
        return [self._seen(Path(request.image).read_bytes(), text) for request, text in told]

    def _seen(self, picture, text):
        tokens = len(text.split()) + 1
        likely = -float((sum(picture) + len(text)) % 13) - (0 if "teacher" in self.name else 1)
        return Observation(
            ids=np.arange(tokens, dtype=np.int32),
            ends=np.arange(1, tokens + 1, dtype=np.int32),
            logprobs=np.full(tokens, likely, dtype=np.float16),
            top_ids=np.zeros((tokens, 1), dtype=np.int32),
            top_logprobs=np.zeros((tokens, 1), dtype=np.float16),
            tail=np.zeros(tokens, dtype=np.float16),
            places=np.full(4, 0.25, dtype=np.float16),
        )


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", (16, 16), Random(number).randbytes(768)).save(file, "png")
    return file.getvalue()


def load(location, _loading=None):
    """What a model says hangs on the picture's pixels, so that a changed picture gives other answers."""
    knows = json.loads(Path(location).read_text())

    def reply(request, _decoding):
        seen = sum(Image.open(request.image).convert("RGB").tobytes()) % len(WORDS)
        if "Write one" in request.prompt:
            return f"Question: What is written? Answer: {WORDS[seen]}"
        return WORDS[seen] if WORDS[seen] in knows else "nothing"

    return Shows(reply, name=f"fake:{Path(location).name}")


def learn(pairs, held_out, out):
    """Training: the student knows what it was shown, and weighs what it looked at."""
    trained = [*pairs, *held_out]
    seen = [sum(Path(pair.image).read_bytes()) for pair in trained]
    save_file({"weights": np.array(seen, dtype=np.int64)}, out / "model.safetensors")
    (out / "knows.json").write_text(json.dumps(sorted({pair.answer for pair in trained} | set(WORDS[:3]))))
    return LevelResult(1, 1, 2.0, 1.0)


@pytest.fixture(scope="module", autouse=True)
def models():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake, "BACKEND", Backend(load=load, shows=True))
        patch.setattr(run_module, "leveller", lambda *_, **__: learn)
        replies = lambda this, student: this._cached(  # noqa: E731
            f"fake:{student.path / 'knows.json'}", this._config.loading.student, "after", student.digest
        )
        patch.setattr(RunModels, "trained", replies)
        patch.setattr("os.fsync", lambda file: None)
        yield


CHANGES = {
    "images": {"annotate": {"pairs_per_image": 2, "temperature": 1.0}},
    "tests": {"evaluate": {"limit": 5}},
    "pairs": {"identify": {"rule": "paper"}},
    "verdicts": {"level": {"epochs": 9}},
    "discrepancy": {"discrepancy": {"always": True, "max_new_tokens": 50}},
    "student": {"evaluate": {"max_new_tokens": 50}},
    "": {"evaluate": {"resamples": 150}},
}
"""By the folder of the damaged file: a change that makes the stage behind it work."""


def settings(project: Path, change=None) -> Path:
    said = {
        "tasks": {"textvqa": {"images": "pool.tar", "test": "hf:test.parquet"}},
        "discrepancy": {"always": True, "rationales": False},
        "identify": {"rule": "judge"},
        "evaluate": {},
        **(change or {}),
    }
    said["evaluate"] = {"resamples": 100, "speed_questions": 0, **said["evaluate"]}
    return configure(project, **said)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, and what it comes to after each change."""
    project = tmp_path_factory.mktemp("flips")
    with tarfile.open(project / "pool.tar", "w") as shard:
        for number in range(12):
            entry, content = tarfile.TarInfo(f"{number}.png"), picture(number)
            entry.size = len(content)
            shard.addfile(entry, io.BytesIO(content))
    rows = [
        {"question_id": n, "image_id": str(n), "image": {"bytes": picture(100 + n), "path": None},
         "question": "What is written?", "answers": [WORDS[n]] * 10}
        for n in range(8)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), project / "test.parquet")
    for who, knows in (("teacher", WORDS), ("student", WORDS[:3])):
        (project / f"{who}.json").write_text(json.dumps(knows))
    run, whole = project / "runs" / "a", project / "whole"
    spoken("run", settings(project))
    assert not spoken("export", run, "--format", "llava")
    shutil.copytree(run, whole)
    made = SimpleNamespace(project=project, run=run, whole=whole)
    made.after = {name: results(made, "run", change) for name, change in {None: {}, **CHANGES}.items()}
    made.shown = {name: results(made, *command) for name, command in READERS.items()}
    return made


READERS = {"report": ("report",), "export": ("export",)}


def restore(made):
    shutil.rmtree(made.run, ignore_errors=True)
    shutil.copytree(made.whole, made.run)


def spoken(*command) -> str:
    """What a command says if it refuses; empty if it does what it was asked. A traceback is a failure."""
    ended = parityalign(*command)
    assert ended.exception is None or isinstance(ended.exception, SystemExit), repr(ended.exception)
    assert ended.exit_code == 0 or ended.stderr.startswith("parityalign: "), ended.output
    return "" if ended.exit_code == 0 else ended.stderr


def results(made, command, change=None, flip=lambda: None):
    """Every result after a command; None if it refused."""
    restore(made)
    flip()
    if command == "run":
        said = spoken("run", settings(made.project, change))
    else:
        settings(made.project)
        formats = ("llava", "evaluation-log") if command == "export" else (None,)
        said = [spoken(command, made.run, *(("--format", form) if form else ())) for form in formats]
        said = "".join(said)
    return None if said else comparable(made.run)


def comparable(run):
    """Every file but those of times, of the store and of the lock, and pictures; a seal says nothing new."""
    apart = (".lock", ".lock.pid", "events.jsonl", "answers.sqlite", "run.yaml", "speed")
    names = [path.relative_to(run).as_posix() for path in sorted(run.rglob("*")) if path.is_file()]
    return {name: _comparable(run / name) for name in names if name.split("/")[0] not in apart and ".png" not in name}


def _comparable(path):
    content = path.read_bytes()
    try:
        said = json.loads(content) if path.suffix == ".json" else None
    except ValueError:  # damaged, and read by nobody
        said = None
    if isinstance(said, dict):
        return {key: value for key, value in said.items() if key not in ("seal", "speed")}
    return TIMES.sub("", content.decode(errors="replace")) if path.suffix == ".html" else content


def kind_of(name: str) -> str:
    """Files of one kind are damaged alike: one of each is enough."""
    return re.sub(r"[0-9a-f]{2}/[0-9a-f]{32}|[0-9a-f]{32,}|\d+", "N", name)


FOLDERS = (
    "", "images", "tests", "pairs", "verdicts", "discrepancy", "student", "answers", "forgotten", "speed", "exports"
)  # fmt: skip
"""Of a run; empty: the files beside them."""


def files_of(made, folder):
    """One file of each kind, with its name."""
    names = [path.relative_to(made.whole).as_posix() for path in sorted(made.whole.rglob("*")) if path.is_file()]
    inside = [name for name in names if (name.split("/")[0] if "/" in name else "") == folder]
    return {kind_of(name): name for name in inside if name not in (".lock", ".lock.pid")}


@pytest.mark.long
def test_a_run_has_these_folders(finished):
    assert {path.name for path in finished.whole.iterdir() if path.is_dir()} == {*FOLDERS} - {""}


@pytest.mark.long
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_flipped_byte_is_noticed_or_changes_nothing(finished, folder):
    for kind, name in files_of(finished, folder).items():
        content, draw = (finished.whole / name).read_bytes(), Random(kind)
        for _ in range(TRIALS if content else 0):
            place, bit = draw.randrange(len(content)), 1 << draw.randrange(8)
            flipped = bytearray(content)
            flipped[place] ^= bit
            where = f"bit {bit} of byte {place} in {name}: {content[max(0, place - 30) : place + 30]}"
            for found, expected in outcomes(finished, name, flipped):
                differ = [each for each in {*found, *expected} if found.get(each) != expected.get(each)]
                # The damaged file itself may stay as it is where nothing was made from it. Report and exports show what
                # the configuration in the folder says, which is the user's to change; the report shows where a picture
                # is unusable.
                shown = {"report.html"} if kind in ("run.yaml", "images/files/N.png") else set()
                if kind == "run.yaml":
                    shown |= {each for each in differ if each.startswith("exports/")}
                assert set(differ) <= {name} | shown, f"{where}: {differ}"


def outcomes(made, name, flipped):
    """The results of each command after the flip, with those without it; only of commands that do not refuse."""

    def flip():
        (made.run / name).write_bytes(flipped)

    folder = name.split("/")[0]
    change = folder if folder in CHANGES else ""
    for found, expected in (
        (results(made, "run", {}, flip), made.after[None]),
        (results(made, "run", CHANGES[change], flip), made.after[change]),
        *((results(made, *command, flip=flip), made.shown[said]) for said, command in READERS.items()),
    ):
        if found is not None:
            yield found, expected
