"""Run folders to look at, a client of the viewer as a browser would be one, and what stands in a page."""

import json
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import yaml
from starlette.testclient import TestClient

from makers import speckle
from parityalign.core import Pair, Reply, RunFolder, Verdict, content_id
from parityalign.core.records import ImageRef, PairDiscrepancy, Rationale
from parityalign.core.signals import RATIONALES, STUDENT, TEACHER, Observation, ObservationRef, write_shard
from parityalign.data import image_id
from parityalign.viewer.app import application
from parityalign.viewer.trying import Trials
from parityalign.viewer.watching import watch_runs

HERE = "http://127.0.0.1:8765"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<a href='javascript:alert(1)'>go</a><iframe src=//elsewhere.example>",
    "{{ 7 * 7 }}{% include 'base.html' %}",
    "\u202egnp.exe\u2066 \x1b[31mred\x07\x00",
    "' OR 1=1; DROP TABLE pairs; --",
    "&lt;b&gt; </textarea></title><style>*{display:none}</style>",
    "\ud800 half, ]]> <!-- <![CDATA[",
]
"""Texts that try to be more than text."""


@contextmanager
def viewer(*paths, token=True):
    """A client of the viewer of these runs, with its cookie and the origin of its own pages."""
    runs, trials = watch_runs([Path(path) for path in paths]), Trials()
    app = application(runs, trials)
    for run in runs:
        run.wait()
    client = TestClient(app, base_url=HERE, headers={"origin": HERE} if token else {})
    client.runs, client.token = runs, app.token
    if token:
        client.get(f"/?token={app.token}")
    try:
        yield client
    finally:
        trials.close()
        for run in runs:
            run.close()


SHARD = 32
"""Pairs whose signals lie in one file."""


def looks(number, who):
    """(16,) where a model looks on the picture of a pair."""
    return np.random.default_rng([number, len(who)]).dirichlet(np.ones(16))


def add_signals(artifact, made, texts):
    """Attention of both models and the teacher's rationale, on every second pair."""
    flat = {"ids": 1, "ends": 1, "logprobs": -1, "top_ids": (1, 1), "top_logprobs": (1, 1), "tail": 0}
    plain = {name: np.ones(value) if isinstance(value, tuple) else np.full(1, value) for name, value in flat.items()}
    kinds = {"ids": "i4", "ends": "i4", "top_ids": "i4"}
    arrays = {name: value.astype(kinds.get(name, "f2")) for name, value in plain.items()}
    known = made[::2]
    for who in (TEACHER, STUDENT):
        lines = []
        for at in range(0, len(known), SHARD):
            shard, some = f"{who}-{at:08d}.safetensors", range(at, min(at + SHARD, len(known)))
            seen = [Observation(**arrays, places=looks(2 * number, who).astype("f2")) for number in some]
            write_shard(artifact.path / shard, seen)
            lines += [
                ObservationRef(pair_id=known[number].pair_id, shard=shard, row=row, tokens=1, has_places=True)
                for row, number in enumerate(some)
            ]
        artifact.stream(f"{who}.jsonl", ObservationRef).write(lines)
    told = [texts[number % len(texts)] if texts else f"because of {number}" for number in range(len(known))]
    rationales = [Rationale(pair_id=pair.pair_id, text=text) for pair, text in zip(known, told, strict=True)]
    artifact.stream(RATIONALES, Rationale).write(rationales)


def drawn_run(folder, pairs=120, *, texts=(), review=True, signals=False):
    """A run folder with pairs and verdicts, as if identify and discrepancy had made them; `texts` go everywhere."""
    pool = folder.parent / "pool"
    images = []
    for number in range(6):
        path = speckle(pool / f"{number}.png", seed=number)
        images.append(ImageRef(image_id=image_id(path.read_bytes()), path=f"../pool/{number}.png", task="textvqa"))
    said = {"run": ".", "teacher": "embedded:teacher", "student": "embedded:student"}
    said |= {"tasks": {"textvqa": {"images": "../pool"}}} | ({"review": "review.jsonl"} if review else {})
    folder.mkdir()
    (folder / "run.yaml").write_text(yaml.safe_dump(said))
    kinds = ["teacher_only", "student_right", "neither", "unsure", "dropped"]
    made, verdicts, differ, replies = [], [], [], []
    for number in range(pairs):
        text = texts[number % len(texts)] if texts else ""
        question, image = f"What is {number}? {text}", images[number % 6]
        pair_id = content_id(image.image_id, question)
        made.append(
            Pair(
                pair_id=pair_id, image_id=image.image_id, image="", task="textvqa", question=question,
                answer=f"Wort {number % 7} {text}", teacher=f"embedded:teacher {text}",
            )
        )  # fmt: skip
        kind = kinds[number % 5]
        verdicts.append(
            Verdict(
                pair_id=pair_id, verdict=kind, reason=f"filter: {text}" if kind == "dropped" else f"because {text}",
                student_text=f"said {number % 3} {text}", teacher_text=f"taught {text}" if number % 2 else None,
            )
        )  # fmt: skip
        differ.append(
            PairDiscrepancy(
                pair_id=pair_id, image_id=image.image_id, task="textvqa", verdict=kind, teacher_right=None,
                student_right=None, teacher_logprob=-0.5, student_logprob=-1.0, teacher_tokens=1, student_tokens=1,
                confidence_gap=(number * 37 % 101) / 10 - 5 if number % 4 else None,
                attention_divergence=None, rationale_gap=None,
            )
        )  # fmt: skip
        replies.append(
            Reply(
                reply_id=pair_id, image_id=image.image_id, task="textvqa", raw=text, outcome="ok", pair_id=pair_id,
                kind=["colours", "numbers"][number % 2] + text,
            )
        )  # fmt: skip
    with RunFolder(folder) as run:
        files = {
            "images": ("accepted.jsonl", ImageRef, images),
            "verdicts": ("verdicts.jsonl", Verdict, verdicts),
            "discrepancy": ("pairs.jsonl", PairDiscrepancy, differ),
        }
        for name, (file, kind, records) in files.items():
            artifact = run.artifact(name, inputs={}, settings={})
            artifact.stream(file, kind).write(records)
            if signals and name == "discrepancy":
                add_signals(artifact, made, texts)
            artifact.finish({name: len(records)})
        artifact = run.artifact("pairs", inputs={}, settings={})
        artifact.stream("pairs.jsonl", Pair).write(made)
        artifact.stream("replies.jsonl", Reply).write(replies)
        artifact.finish({"pairs": pairs})
    return folder


def listed(page):
    """The ids of the pairs in a list, in its order."""
    return [dict(tag.attributes)["data-pair"] for tag in tags_of(page) if "data-pair" in dict(tag.attributes)]


class Tag:
    """A start tag of a page."""

    def __init__(self, name, attributes):
        self.name, self.attributes = name, attributes


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(Tag(tag, attrs))

    def handle_data(self, data):
        self.texts.append(data)


def tags_of(page):
    """The start tags in a page."""
    parser = _Tags()
    parser.feed(page)
    return parser.tags


def text_of(page):
    """What a reader sees, with spaces in the place of line ends."""
    parser = _Tags()
    parser.feed(page)
    return " ".join(" ".join(parser.texts).split())


def marks_in(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
