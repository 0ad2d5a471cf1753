"""How varied, usable and true the bundled teacher's pairs are, by prompt and decoding, on the demo's pictures.

    python benchmarks/questions.py FOLDER [--pictures 150] [--seed 8] [--kinds] [--top-p 0.9] [--top-k 20]
        [--extra-draws 0.5] [--most-alike 0.2]

The teacher writes four times about each picture. Truth is what was drawn: a pair is true if its answer equals, in lower
case, the answer of a drawn fact with its question. The same questions are then asked greedily under the answer prompt,
which tells how many answers would be true if they were not drawn with the question. Pictures and answers stay in
FOLDER, so that another call asks only what is new.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from math import exp, log
from pathlib import Path
from tempfile import TemporaryDirectory

from judging import drawn_answers, drawn_images, is_true, mute
from parityalign.config import AnnotateSettings, TaskData
from parityalign.core import ANSWERS, Artifact, Decoding, ImageRef, Pair, Reply, Task
from parityalign.demo.generate import truth
from parityalign.demo.worlds import KINDS, WORLDS
from parityalign.engines import AnswerStore, CachedModel
from parityalign.models.open import load_model
from parityalign.stages.annotate import PAIRS, REPLIES, annotate_images, with_images
from parityalign.stages.identify import as_asked
from parityalign.stages.variety import answer_type, opening, same_question
from parityalign.tasks import task_of

_DRAWS = 4
_MOST_SHOWN = 5


def main() -> None:
    """Draws, asks and prints what was written about each world."""
    parser = argparse.ArgumentParser(description="Counts how varied and how true the bundled teacher's pairs are.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=150, help="a task")
    parser.add_argument("--seed", type=int, default=8, help="of the pictures; the demo has 0")
    parser.add_argument("--kinds", action="store_true", help="ask for the worlds' kinds of questions, as the demo does")
    parser.add_argument("--teacher", default="embedded:teacher", help="such as hf:FOLDER with an earlier one")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--extra-draws", type=float)
    parser.add_argument("--most-alike", type=float)
    asked = parser.parse_args()
    chosen = {name: getattr(asked, name) for name in ("top_p", "top_k", "extra_draws", "most_alike")}
    settings = AnnotateSettings(pairs_per_image=_DRAWS, kinds_in_turn=True, max_new_tokens=32, batch_size=64, **chosen)
    teacher = CachedModel(asked.teacher, lambda: load_model(asked.teacher), AnswerStore(asked.folder / ANSWERS))
    drawn = list(drawn_images(asked.folder, asked.pictures, asked.seed))
    for name in WORLDS:
        images = [image for image in drawn if image.task == name]
        kinds = tuple(KINDS[name]) if asked.kinds else None
        _tell(task_of(name, TaskData(images=("none",), kinds=kinds)), images, teacher, settings, asked.seed)


def _tell(task: Task, images: Sequence[ImageRef], teacher: CachedModel, settings: AnnotateSettings, seed: int) -> None:
    with TemporaryDirectory() as folder:
        made = Artifact(Path(folder) / "pairs", inputs={}, settings={}, version=1)
        made.begin()
        annotate_images(made, images, {task.name: task}, teacher, settings=settings, seed=seed, progress=mute)
        replies = list(made.stream(REPLIES, Reply))
        pairs = list(with_images(made.stream(PAIRS, Pair), images))
    decoding = Decoding(max_new_tokens=8)
    said = teacher.answer([as_asked(pair, task) for pair in pairs], decoding=decoding, batch_size=64, on_progress=_none)
    questions = Counter(same_question(pair.question) for pair in pairs)
    most = sum(count for _, count in questions.most_common(10))
    real = [pair for pair in pairs if drawn_answers(pair)]
    true = sum(is_true(pair, pair.answer) for pair in pairs)
    greedy = sum(is_true(pair, said[pair.pair_id].text) for pair in pairs)
    print(f"\n{task.name}: {len(replies)} replies, {len(pairs)} pairs ({_share(len(pairs), len(replies))})")
    print(f"  outcomes: {_counts(Counter(reply.outcome for reply in replies))}")
    print(
        f"  distinct questions: {len(questions)}; pairs with one of the ten most frequent: {_share(most, len(pairs))}"
    )
    print(f"  questions about what was drawn: {_share(len(real), len(pairs))}")
    print(f"  true answers: {_share(true, len(pairs))}; asked greedily: {_share(greedy, len(pairs))}")
    facts = Counter(kind for pair in pairs if (kind := _fact_kind(pair)))
    print(f"  kinds of facts: {len(facts)}, as even as {_effective(facts):.1f} equal ones: {_counts(facts)}")
    if task.kinds:
        of_kind = {reply.pair_id: reply.kind for reply in replies if reply.pair_id}
        fits = [_fact_kind(pair) in KINDS[task.name][of_kind[pair.pair_id]] for pair in pairs]
        could = [_could(pair, KINDS[task.name][of_kind[pair.pair_id]]) for pair in pairs]
        told = f"{_share(sum(fits), len(pairs))}; where the picture has it {_share(sum(fits), sum(could))}"
        print(f"  of the kind asked for: {told}")
    print(f"  answers: {_counts(Counter(answer_type(pair.answer).value for pair in pairs))}")
    print(f"  openings: {_counts(Counter(opening(pair.question) for pair in pairs), 8)}")
    for question, count in questions.most_common(_MOST_SHOWN):
        print(f"  {count:5} {question}")


def _fact_kind(pair: Pair) -> str | None:
    """The kind of the drawn fact that a pair asks about."""
    asked = pair.question.casefold()
    return next((fact.kind for fact in truth(pair.task, Path(pair.image)) if fact.question.casefold() == asked), None)


def _could(pair: Pair, kinds: Sequence[str]) -> bool:
    """Whether the picture has a fact of one of these kinds."""
    return any(fact.kind in kinds for fact in truth(pair.task, Path(pair.image)))


def _effective(counts: Counter[str]) -> float:
    """How many equally frequent kinds would be as even: the exponential of the entropy."""
    shares = [count / counts.total() for count in counts.values()]
    return exp(-sum(share * log(share) for share in shares))


def _counts(counts: Counter[str], first: int | None = None) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common(first))


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.1f} %"


def _none(done: int, total: int) -> None:
    """Progress that nobody watches."""


if __name__ == "__main__":
    main()
