"""How well each rule of identify judges: against what a person says, and against drawn truth.

    python benchmarks/judging.py [FOLDER] [--pictures 200] [--seed 5]

First the golden judgements, `tests/golden/judgements.jsonl`: of how many pairs of answers a rule says what the person
says, among those that it does not call unsure, with Wilson's interval. The metric and the paper's rule know no unsure.

Then, with FOLDER, how many of the true gaps each rule finds on the demo's pictures, and how many of its gaps are true.
The bundled teacher writes pairs, both models answer all of them, and each rule judges the same answers. Truth is what
was drawn: an answer is true if it equals, in lower case, the answer of a drawn fact with the pair's question. A pair is
a true gap if its own answer is true and the student's is not. Pictures, pairs and answers stay in FOLDER, so a second
call with the same arguments only judges again.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random

from parityalign.config import AnnotateSettings, IdentifySettings
from parityalign.core import ANSWERS, Answer, Artifact, ImageRef, Pair, RunFolder, Verdict
from parityalign.data.images import image_id
from parityalign.demo.generate import POOL_SEEDS, pool_file, seeds, truth
from parityalign.demo.worlds import WORLDS
from parityalign.engines import AnswerStore, CachedModel, TwoModels
from parityalign.metrics import share_interval
from parityalign.models.open import load_model
from parityalign.stages.annotate import annotate_images, written_pairs
from parityalign.stages.identify import STUDENT_ANSWERS, TEACHER_ANSWERS, identify_gaps
from parityalign.stages.identify_files import judge_answers
from parityalign.stages.judging import judge_of
from parityalign.tasks import load_task

RULES = ("metric", "paper", "judge")
SPLITS = ("dev", "test")
GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "judgements.jsonl"
TASKS = {name: load_task(name, kinds=False) for name in WORLDS}


def main() -> None:
    """Judges by every rule and prints the tables."""
    parser = argparse.ArgumentParser(description="Compares the rules of identify with a person and with drawn truth.")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--pictures", type=int, default=200, help="a task")
    parser.add_argument("--seed", type=int, default=5, help="of the pictures; the demo has 0")
    asked = parser.parse_args()
    _print_agreement()
    if asked.folder is None:
        return
    pairs, student, teacher = _answered(asked.folder, asked.pictures, asked.seed)
    print("\ntask      rule    pairs  true gaps  gaps  of them true  precision  recall  unsure  of them true gaps")
    for task in (*TASKS, "all"):
        of_task = [pair for pair in pairs if task in (pair.task, "all")]
        for rule in RULES:
            verdicts = [each for name in TASKS for each in _judged(name, rule, of_task, student, teacher)]
            print(_row(task, rule, of_task, {each.pair_id: each for each in verdicts}, student))


def _print_agreement() -> None:
    rows = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    print("split style    rule    rows  unsure  share   decided  agree  share   interval")
    for split in SPLITS:
        for style in (*TASKS, "all"):
            some = [row for row in rows if row["split"] == split and style in (row["style"], "all")]
            for rule in RULES:
                print(f"{split:5} {style:8} {rule:7} {_agreement(some, rule)}")


def _agreement(rows: Sequence[Mapping[str, str]], rule: str) -> str:
    said = [_said(row, rule) for row in rows]
    agree = [each == row["human"] for each, row in zip(said, rows, strict=True) if each != "unsure"]
    low, high = share_interval(agree, list(map(str, range(len(agree)))))
    unsure, share = len(rows) - len(agree), sum(agree) / len(agree)
    counts = f"{len(rows):4} {unsure:7} {unsure / len(rows):6.3f} {len(agree):9} {sum(agree):6} {share:6.3f}"
    return f"{counts}   {low:.3f} to {high:.3f}"


def _said(row: Mapping[str, str], rule: str) -> str:
    judge = judge_of(TASKS[row["style"]], IdentifySettings.model_validate({"rule": rule}))
    return str(judge.outcome(row["answer"], row["reference"], row["question"]))


def _answered(folder: Path, pictures: int, seed: int) -> tuple[list[Pair], dict[str, str], dict[str, str]]:
    """The pairs on so many pictures a task, and both models' answers to all of them."""
    with RunFolder(folder) as run:
        inputs = {"pictures": f"{pictures} of seed {seed}"}
        made, verdicts = (run.artifact(name, inputs=inputs, settings={}) for name in ("pairs", "verdicts"))
        images = list(drawn_images(folder, pictures, seed))
        teacher, student = (_model(name, folder) for name in ("teacher", "student"))
        drawing = AnnotateSettings(pairs_per_image=4, max_new_tokens=32, top_p=1.0)
        annotate_images(made, images, TASKS, teacher, settings=drawing, seed=seed, progress=mute)
        pairs = written_pairs(made, images)
        asking = IdentifySettings(rule="paper", ask_teacher="all", max_new_tokens=8)
        identify_gaps(verdicts, pairs, TASKS, TwoModels(student, teacher), settings=asking, progress=mute)
        return pairs, _texts(verdicts, STUDENT_ANSWERS), _texts(verdicts, TEACHER_ANSWERS)


def drawn_images(folder: Path, pictures: int, seed: int) -> Iterator[ImageRef]:
    """So many pictures of each world, drawn into the folder unless they are there."""
    for task in WORLDS:
        (folder / "pool" / task).mkdir(parents=True, exist_ok=True)
        for picture_seed in seeds(POOL_SEEDS, task, seed, pictures):
            path = pool_file(folder, task, picture_seed)
            if not path.exists():
                WORLDS[task](Random(picture_seed)).image.save(path, quality=90)
            yield ImageRef(image_id=image_id(path.read_bytes()), path=str(path), task=task)


def _judged(
    task: str, rule: str, pairs: Sequence[Pair], student: Mapping[str, str], teacher: Mapping[str, str]
) -> list[Verdict]:
    settings = IdentifySettings.model_validate({"rule": rule})
    return judge_answers(
        [pair for pair in pairs if pair.task == task], student, teacher, task=TASKS[task], settings=settings
    )


def _row(
    task: str, rule: str, pairs: Sequence[Pair], verdicts: Mapping[str, Verdict], student: Mapping[str, str]
) -> str:
    missed = {pair.pair_id for pair in pairs if is_true(pair, pair.answer) and not is_true(pair, student[pair.pair_id])}
    found = {name for name, each in verdicts.items() if each.verdict == "teacher_only"}
    unsure = {name for name, each in verdicts.items() if each.verdict == "unsure"}
    both = len(found & missed)
    shares = f"{both / max(1, len(found)):9.3f} {both / max(1, len(missed)):7.3f}"
    return (
        f"{task:9} {rule:7} {len(pairs):5} {len(missed):10} {len(found):5} {both:13} "
        f"{shares} {len(unsure):7} {len(unsure & missed):18}"
    )


def is_true(pair: Pair, answer: str) -> bool:
    """Whether an answer is that of a drawn fact with the pair's question, in lower case."""
    return answer.strip().casefold() in drawn_answers(pair)


def drawn_answers(pair: Pair) -> set[str]:
    """The answers, in lower case, of the drawn facts with the pair's question; none: it asks what was not drawn."""
    asked = pair.question.casefold()
    return {answer for question, answer in _facts(pair.task, pair.image) if question == asked}


@cache
def _facts(task: str, image: str) -> tuple[tuple[str, str], ...]:
    return tuple((fact.question.casefold(), fact.answer.casefold()) for fact in truth(task, Path(image)))


def _model(name: str, folder: Path) -> CachedModel:
    spec = f"embedded:{name}"
    return CachedModel(spec, lambda: load_model(spec), AnswerStore(folder / ANSWERS))


def _texts(verdicts: Artifact, file: str) -> dict[str, str]:
    return {answer.item_id: answer.text for answer in verdicts.stream(file, Answer)}


def mute(step: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


if __name__ == "__main__":
    main()
