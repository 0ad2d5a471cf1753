"""Reads what models answered from a run's own files into its answer store where there is none: nothing is asked again.

Version 0.1 had no store: `server/answers.jsonl` was a ledger of what servers said, by the key that the store has too;
and what any model answered stands in the files of the stages, each with a manifest of what it was made from. They
serve a run of today as well, whose store was lost.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from parityalign.config import AnnotateSettings, RunConfig, backend_of, split_model
from parityalign.core import (
    TESTS,
    Answer,
    Decoding,
    ImageRef,
    Pair,
    Question,
    Record,
    Reply,
    Said,
    Stream,
    Task,
    content_id,
    found_path,
    read_begun,
    read_manifest,
    refuse_changed,
)
from parityalign.engines import DECLINED, AnswerStore, Asked, KnownModel, Spent, answer_key, connect
from parityalign.stages import (
    BEFORE_FILE,
    PAIRS,
    REPLIES,
    STUDENT_ANSWERS,
    TEACHER_ANSWERS,
    TEACHER_FILE,
    as_asked,
    draw_of,
    question_as_asked,
)

R = TypeVar("R", bound=Record)

LEDGER = "server/answers.jsonl"


class Exchange(Record):
    """A line of the ledger: one question to a server, and what came of it."""

    key: str
    stage: str
    model: str
    """URL and served name."""
    text: str | None = None
    """None: there was no answer in the end."""
    finish: str = ""
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    logprob: float | None = None
    refused: tuple[str, ...] = ()
    """Fields of its request that were left out, as the server did not take them."""

    def said(self) -> Said | None:
        """The answer as the store has it."""
        if self.text is None:
            return None
        return Said(
            self.text,
            self.finish,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            logprob=self.logprob,
            left_out=self.refused,
        )


class Kept(NamedTuple):
    """Answers of one model in one stage, and what they took."""

    model: str
    """The model's identity."""
    stage: str
    answers: dict[str, Said]
    spent: Spent


class Known(NamedTuple):
    """A model of the run today."""

    fingerprint: str
    """As manifests have it."""
    identity: str
    """As the store has it."""


class Old(NamedTuple):
    """A run folder without a store."""

    path: Path
    tasks: Mapping[str, Task]
    models: Mapping[str, Known]
    """By `teacher` and `student`."""

    def made_with(self, made_of: Mapping[str, Any], role: str) -> str | None:
        """The identity of the model that an artifact was made with; None if that is not today's."""
        known = self.models.get(role)
        same = known and made_of["inputs"].get(f"{role} model") == known.fingerprint
        return known.identity if known and same else None


def read_old_answers(store: AnswerStore, old: Old) -> int:
    """Keeps every answer of an old run folder that today's questions could be answered with.

    Returns:
        How many there were.

    Raises:
        UserError: A file of the folder is damaged.
        WorkFailed: The disk refused.
    """
    count = 0
    for kept in (*_of_stages(old), *_of_ledger(old.path)):  # the ledger last: it knows more of an answer
        store.stage = kept.stage
        store.keep(kept.model, kept.answers, kept.spent)
        count += len(kept.answers)
    return count


def holds_old_answers(run: Path) -> bool:
    """Whether a run folder has answers that a store has not."""
    return any((run / name).is_file() for name in (LEDGER, f"pairs/{REPLIES}"))


def remember_served(store: AnswerStore, run: Path, config: RunConfig) -> None:
    """Keeps the names of the served models in the ledger, so that a run goes on with the one that it began with."""
    names = {exchange.model for exchange in _exchanges(run)}
    for role in ("teacher", "student"):
        spec = getattr(config, role)
        if not backend_of(spec).remote:
            continue
        _, location = split_model(spec)
        place = location.partition("#")[0].rstrip("/")
        for name in sorted(name for name in names if name.partition("#")[0] == place):
            model = connect(name, getattr(config.loading, role), config.server, store)
            store.remember_model(name, KnownModel(model.name, model.special_tokens))


def _of_ledger(run: Path) -> Iterator[Kept]:
    by_stage: defaultdict[tuple[str, str], list[Exchange]] = defaultdict(list)
    for exchange in _exchanges(run):
        by_stage[exchange.model, exchange.stage].append(exchange)
    for (model, stage), exchanges in by_stage.items():
        answers = {each.key: said for each in exchanges if (said := each.said())}
        spent = (Spent.on(each.said(), requests=each.requests, seconds=each.seconds) for each in exchanges)
        yield Kept(model, stage, answers, sum(spent, Spent()))


def _exchanges(run: Path) -> Iterator[Exchange]:
    yield from Stream(run / LEDGER, Exchange, read_only=True)


def _of_stages(old: Old) -> Iterator[Kept]:
    yield from _of_annotate(old)
    verdicts = {"student": STUDENT_ANSWERS, "teacher": TEACHER_ANSWERS}
    yield from _of_questions(old, "verdicts", "identify", verdicts, _pairs(old))
    yield from _of_questions(old, "answers", "evaluate", {"student": BEFORE_FILE, "teacher": TEACHER_FILE}, _tests(old))


def _of_annotate(old: Old) -> Iterator[Kept]:
    made_of = _made_of(old.path / "pairs")
    teacher = old.made_with(made_of, "teacher") if made_of else None
    if made_of is None or teacher is None:
        return
    settings = made_of["settings"]
    named = {each: f"annotate.{each}" for each in ("temperature", "top_p", "top_k", "max_new_tokens")}
    known = {each: settings[key] for each, key in named.items() if key in settings}
    annotate = AnnotateSettings(**{"top_p": 1.0, **known})  # version 0.1 drew among all tokens
    images = list(_records(old.path / "images" / "accepted.jsonl", ImageRef))
    replies: defaultdict[tuple[str, str], list[Reply]] = defaultdict(list)
    for reply in _records(old.path / "pairs" / REPLIES, Reply):
        replies[reply.task, reply.image_id].append(reply)
    for task in old.tasks.values():
        if made_of["inputs"].get(f"annotate prompt of {task.name}") == task.annotate_digest:
            # In their order: their ids hang on what the teacher was called, which may be its path then.
            drawn = [
                (draw_of(image, task, "", number, settings["seed"], reply.kind).asked, reply)
                for image in images
                for number, reply in enumerate(replies[task.name, image.image_id])
                if image.task == task.name and reply.outcome != DECLINED
            ]
            said = {asked.item_id: Said(reply.raw, logprob=reply.logprob) for asked, reply in drawn}
            yield _kept(teacher, "annotate", [asked for asked, _ in drawn], said, annotate.decoding)


def _of_questions(
    old: Old, artifact: str, stage: str, files: Mapping[str, str], by_task: Mapping[str, Sequence[Asked]]
) -> Iterator[Kept]:
    """The greedy answers of an artifact to questions that the tasks still ask as they did."""
    made_of = _made_of(old.path / artifact)
    if made_of is None:
        return
    asked = [
        each
        for name, questions in by_task.items()
        if made_of["inputs"].get(f"answer prompt of {name}") == content_id(old.tasks[name].answer_prompt)
        for each in questions
    ]
    decoding = Decoding(made_of["settings"][f"{stage}.max_new_tokens"], 0.0)
    for role, file in files.items():
        if model := old.made_with(made_of, role):
            answers = [each for each in _records(old.path / artifact / file, Answer) if not each.not_asked]
            said = {
                each.item_id: Said(each.text, "length" if each.cut_off else "", logprob=each.logprob)
                for each in answers
            }
            yield _kept(model, stage, asked, said, decoding)


def _pairs(old: Old) -> dict[str, list[Asked]]:
    """The questions of the pairs, by task."""
    asked: dict[str, list[Asked]] = {name: [] for name in old.tasks}
    for pair in _records(old.path / "pairs" / PAIRS, Pair):
        if pair.task in asked:
            asked[pair.task].append(as_asked(pair, old.tasks[pair.task]))
    return asked


def _tests(old: Old) -> dict[str, list[Asked]]:
    """The questions of the test splits as they were kept, by task; not those whose picture was changed since."""
    asked: dict[str, list[Asked]] = {name: [] for name in old.tasks}
    for name, task in old.tasks.items():
        kept = old.path / TESTS / name / "questions.jsonl"
        for question in _records(kept, Question):
            image = Path(found_path(question.image, old.path))
            if image.is_file() and image.stat().st_mtime_ns <= kept.stat().st_mtime_ns:
                asked[name].append(question_as_asked(question.model_copy(update={"image": str(image)}), task))
    return asked


def _kept(model: str, stage: str, asked: Sequence[Asked], said: Mapping[str, Said], decoding: Decoding) -> Kept:
    answers = {answer_key(model, each, decoding): said[each.item_id] for each in asked if each.item_id in said}
    return Kept(model, stage, answers, Spent())


def _made_of(folder: Path) -> dict[str, Any] | None:
    """The inputs and settings of an artifact, finished or not."""
    return read_manifest(folder) or read_begun(folder)


def _records(path: Path, record_type: type[R]) -> Iterator[R]:
    refuse_changed(path)
    yield from Stream(path, record_type, read_only=True)
