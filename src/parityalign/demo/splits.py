"""Writes labelled test splits in the official files of the four benchmarks (layouts as released; `tasks/` reads them).

Where a benchmark has ten annotators, ten answer here, and not all agree: some misread, some give up, some spell
differently. The share of dissent is drawn per question; usually at least four agree, which is enough for a full score.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import NamedTuple

from PIL import Image

from parityalign.demo.canvas import Fact

_AGREEING = (10, 9, 8, 7, 6, 5, 4, 3)
_HOW_OFTEN = (34, 22, 16, 11, 8, 5, 3, 1)
_REASONED = frozenset({"count", "highest", "lowest", "highest_value", "lowest_value", "greater", "difference"})
"""Kinds of chart facts that ChartQA's human part would ask; the others go to the augmented part."""


class AskedPicture(NamedTuple):
    """A test picture and the facts that are asked about it."""

    image: Image.Image
    facts: tuple[Fact, ...]


def ten_answers(fact: Fact, others: Sequence[str], rng: Random) -> list[str]:
    """The answers of ten annotators: the answer, another spelling, a misreading, or `unanswerable`."""
    agreeing = rng.choices(_AGREEING, _HOW_OFTEN)[0]
    strays = (
        fact.answer.capitalize() + ".",
        f"the {fact.answer}",
        rng.choice(others),
        rng.choice(others),
        "unanswerable",
    )
    answers = [fact.answer] * agreeing + [rng.choice(strays) for _ in range(10 - agreeing)]
    rng.shuffle(answers)
    return answers


def write_textvqa(folder: Path, asked: Sequence[AskedPicture], rng: Random) -> None:
    """`TextVQA_0.5.1_val.json` and `train_images/`, where the validation images lie."""
    rows: list[dict[str, object]] = []
    others = _answers(asked)
    for picture in asked:
        name = f"{rng.getrandbits(64):016x}"
        _save(picture.image, folder / "train_images" / f"{name}.jpg")
        for fact in picture.facts:
            rows.append(
                {
                    "question_id": 34602 + len(rows),
                    "question": fact.question,
                    "question_tokens": fact.question.lower().rstrip("?").split(),
                    "image_id": name,
                    "image_width": picture.image.width,
                    "image_height": picture.image.height,
                    "flickr_original_url": "",
                    "flickr_300k_url": "",
                    "image_classes": ["Sign"],
                    "answers": ten_answers(fact, others, rng),
                    "set_name": "val",
                }
            )
    head = {"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1"}
    _write(folder / "TextVQA_0.5.1_val.json", {**head, "data": rows})


def write_stvqa(folder: Path, asked: Sequence[AskedPicture], rng: Random) -> None:
    """`train_task_1.json`, the only file of the benchmark with answers; one or two answers a question."""
    rows: list[dict[str, object]] = []
    words = _answers(asked)
    for number, picture in enumerate(asked):
        name = f"COCO_train2014_{number + 1:012d}.jpg"
        _save(picture.image, folder / "coco-text" / name)
        for fact in picture.facts:
            written = [fact.answer] if rng.random() < 0.6 else [fact.answer, fact.answer.title()]
            rows.append(
                {
                    "question_id": len(rows),
                    "question": fact.question,
                    "file_path": f"coco-text/{name}",
                    "file_name": name,
                    "dataset": "coco-text",
                    "answers": written,
                    "set_name": "train",
                    "dictionary": sorted(set(rng.choices(words, k=40)) | {fact.answer}),
                }
            )
    _write(folder / "train_task_1.json", {"dataset_name": "st_vqa_task_1", "data": rows})


def write_chartqa(folder: Path, asked: Sequence[AskedPicture], rng: Random) -> None:
    """`test/test_human.json`, `test/test_augmented.json` and `test/png/`."""
    parts: dict[str, list[dict[str, str]]] = {"human": [], "augmented": []}
    for picture in asked:
        name = f"{rng.randrange(10**14):014d}.png"
        _save(picture.image, folder / "test" / "png" / name)
        for fact in picture.facts:
            part = "human" if fact.kind in _REASONED else "augmented"
            parts[part].append({"imgname": name, "query": fact.question, "label": fact.answer})
    for part, rows in parts.items():
        _write(folder / "test" / f"test_{part}.json", rows)


def write_okvqa(folder: Path, asked: Sequence[AskedPicture], rng: Random) -> None:
    """The annotations and the questions of val2014; the ten answers are five annotators doubled, as released."""
    annotations: list[dict[str, object]] = []
    questions: list[dict[str, object]] = []
    others = _answers(asked)
    for number, picture in enumerate(asked):
        image_id = 1000 + number
        _save(picture.image, folder / "val2014" / f"COCO_val2014_{image_id:012d}.jpg")
        for place, fact in enumerate(picture.facts):
            question = {"image_id": image_id, "question_id": image_id * 10 + 5 + place}
            questions.append({**question, "question": fact.question})
            annotations.append(
                {
                    **question,
                    "question_type": "other",
                    "answer_type": "other",
                    "confidence": 3,
                    "answers": _five_doubled(fact, others, rng),
                }
            )
    head = {"info": {"version": "1.1"}, "data_subtype": "val2014"}
    _write(folder / "mscoco_val2014_annotations.json", {**head, "annotations": annotations})
    _write(folder / "OpenEnded_mscoco_val2014_questions.json", {**head, "questions": questions})


def _five_doubled(fact: Fact, others: Sequence[str], rng: Random) -> list[dict[str, object]]:
    five = ten_answers(fact, others, rng)
    five = ([fact.answer] * five.count(fact.answer) + [text for text in five if text != fact.answer])[::2]
    return [
        {
            "answer": text.lower().rstrip("."),
            "raw_answer": text,
            "answer_confidence": "yes",
            "answer_id": number,
        }
        for number, text in enumerate((text for text in five for _ in range(2)), start=1)
    ]


def _answers(asked: Sequence[AskedPicture]) -> list[str]:
    return sorted({fact.answer for picture in asked for fact in picture.facts})


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=90)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


WRITERS: Mapping[str, Callable[[Path, Sequence[AskedPicture], Random], None]] = MappingProxyType(
    {"textvqa": write_textvqa, "stvqa": write_stvqa, "chartqa": write_chartqa, "okvqa": write_okvqa}
)
