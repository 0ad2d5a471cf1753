"""RUN.yaml: every file is a configuration that can be written and read again, or is refused in words."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from hypothesis import strategies as st

from fuzz_targets._drawn import broken, of_pieces
from parityalign.config import as_yaml, load_config, read_config
from parityalign.core import UserError

_GOOD = [
    "run: a\nteacher: embedded:teacher\nstudent: embedded:student\ntasks:\n  textvqa: {images: ., test: a.jsonl}\n",
    "run: a\nteacher: http://127.0.0.1:8000/v1#m\nstudent: hf:OWNER/NAME\nseed: 7\n"
    "tasks:\n  mine: {skill: vqa, images: [., 'hf:./b'], answer_prompt: '{question}', kinds: [a, b]}\n"
    "server: {max_attempts: 3, timeout: 20, budget_usd: 1.5}\nfilters: []\n",
    "run: a\nteacher: fake:t.json\nstudent: hf:./s\ntasks: {okvqa: {images: .}}\n"
    "annotate: {pairs_per_image: 2, max_new_tokens: 40, temperature: 0.5}\nloading: {student: {dtype: float32}}\n"
    "level: {epochs: 1, method: lora, objective: {answer: 1, confidence: {weight: .5, temperature: 2}}}\n",
]
_PIECES = [
    *(
        "run: a\n",
        "teacher: ",
        "student: ",
        "tasks:\n",
        "  vqa: ",
        "{",
        "}",
        "[",
        "]",
        "- ",
        ": ",
        ", ",
        "\n",
        "  ",
        "\t",
    ),
    *(
        "&a ",
        "*a",
        "<<: *a",
        "!!python/object:os.system ",
        "!!binary ",
        "!!set ",
        "!!timestamp ",
        "? ",
        "| \n",
        ">",
        "%YAML 1.1",
    ),
    *(
        "null",
        "~",
        "true",
        "yes",
        ".inf",
        ".nan",
        "1e400",
        "0x10",
        "1_000",
        "2024-13-45",
        "12:30:45",
        "9" * 400,
        "0o9",
        "-1",
    ),
    *(
        "embedded:teacher",
        "hf:",
        "http://",
        "http://[",
        "fake:",
        ".",
        "..",
        "/",
        "/dev/null",
        "\0",
        "\x1b",
        "\ud800",
        "é",
        "a" * 300,
    ),
]

INPUTS = (broken(_GOOD, _PIECES) | of_pieces(_PIECES)).map(
    lambda text: text.encode("utf-8", "surrogatepass")
) | st.binary()


@cache
def _folder() -> Path:
    folder = Path(mkdtemp(prefix="fuzz-run-yaml-"))
    (folder / "a.jsonl").write_text('{"image": "a.png", "question": "What?", "answers": ["tea"]}\n')
    (folder / "b").mkdir()
    return folder


def check(content: bytes) -> None:
    """Reads one; what is read comes back from what is written."""
    path = _folder() / "run.yaml"
    path.write_bytes(content)
    try:
        config = load_config(path)
    except UserError:
        return
    again = path.with_name("again.yaml")
    again.write_text(as_yaml(config, path.parent), encoding="utf-8")
    if read_config(again) != config:
        raise AssertionError("what is written is read as another configuration")
