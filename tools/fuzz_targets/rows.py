"""Files of JSON lines, JSON lists and plain lists: read as whatever they could be, or refused in words."""

from collections import deque
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp

from hypothesis import strategies as st

from fuzz_targets._drawn import broken, of_pieces
from parityalign.core import Question, UserError, read_lines, read_rows
from parityalign.data import Unfit, json_rows, open_questions, open_source, read_given_pairs
from parityalign.stages import score_file
from parityalign.tasks import load_task

_GOOD = [
    '{"image": "a.png", "question": "Sold?", "answers": ["tea", 3.10], "question_id": 7}\n',
    '{"pair_id": "7", "image": "a.png", "question": "What is sold?", "answer": "tea"}\n{"pair_id": 8}\n',
    '{"id": 7, "image": "a.png", "conversations": [{"from": "human", "value": "<image>\\nWhat?"},'
    ' {"from": "gpt", "value": "tea"}]}\n',
    '{"prediction": "tea", "answers": ["tea", "Tea"]}\n',
    "index,question,answer,prediction\n1,\"What, then?\",\"['tea', 'Tea']\",tea\n",
    '{"doc_id": 1, "input": "What?", "target": "[\'tea\']", "filtered_resps": [["tea"]]}\n',
    '[{"question_id": 1, "image_path": "/a/b.jpg", "predicted_question": "What", "predicted_answer": null}]',
    '[{"question_id": 1, "image_path": "/a/b.jpg", "PA_question": "W", "PA_answer": "a", "predictions": "b"}]',
    '[{"image_id": 297147, "question": "What?", "question_id": 2, "answers": ["race"]}]',
    '{"data": [{"image_id": "003a8ae2ef43b901", "qas": [{"question_id": 2, "question": "W?", "answers": ["a"]}]}]}',
    "a.png\n\nb/c.png\n../d.png\n",
]
_PIECES = ['"', "{", "}", "[", "]", ":", ",", "\n", "\r\n", "\\", "null", "true", "NaN", "-Infinity", "1e999", "-0.0"]
_PIECES += ["9" * 5000, "\\ud800", "\ufeff", "\0", "\x85", "\u2028", "[" * 2000, '{"a":' * 2000, "['a' 'b']", '"[]"']
_PIECES += [
    '"image"',
    '"question"',
    '"answers"',
    '"answer"',
    '"pair_id"',
    '"data"',
    "../a",
    "/",
    "/dev/zero",
    "x" * 5000,
]

INPUTS = (broken(_GOOD, _PIECES) | of_pieces(_PIECES)).map(
    lambda text: text.encode("utf-8", "surrogatepass")
) | st.binary()


@cache
def _folder() -> Path:
    return Path(mkdtemp(prefix="fuzz-rows-"))


def check(content: bytes) -> None:
    """Reads a file in every way that a file of rows is read."""
    for name in ("a.jsonl", "a.json", "a.txt", "a.csv", "a.tsv"):
        (_folder() / name).write_bytes(content)
    lines, whole, plain = (_folder() / name for name in ("a.jsonl", "a.json", "a.txt"))
    for read in (
        lambda: read_lines(lines),
        lambda: read_rows(whole),
        lambda: json_rows(lines, "rows"),
        lambda: deque(read_given_pairs(lines, task="vqa", form=None, columns={})),
        *(partial(_scored, _folder() / name) for name in ("a.jsonl", "a.json", "a.csv", "a.tsv")),
        lambda: _asked(lines),
        lambda: _asked(whole),
        lambda: _offered(lines),
        lambda: _offered(plain),
    ):
        _in_words(read)


def _scored(path: Path) -> None:
    deque(score_file("chartqapro_relaxed_accuracy", path, {"prediction": "question", "answers": "answer"}))
    deque(score_file("anls", path))


def _in_words(read: Callable[[], object]) -> None:
    try:
        read()
    except UserError as error:
        str(error).encode("utf-8", "backslashreplace")


def _asked(path: Path) -> None:
    for found in open_questions(load_task("textvqa"), str(path))[0]:
        if Question.model_validate_json(found.question.model_dump_json()) != found.question:
            raise AssertionError(f"the question does not come back from its record: {found.question}")


def _offered(path: Path) -> None:
    source = open_source(str(path))
    source.digest()
    offered = list(source.images())
    if len(offered) != source.count():
        raise AssertionError(f"{source.count()} images are announced and {len(offered)} offered")
    for found in offered:
        found.name.encode()
        try:
            found.read()
        except Unfit as unfit:
            str(unfit)
