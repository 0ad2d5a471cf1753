"""Trains the embedded teacher and student from nothing: `python -m demo_models.recipe teacher`.

First the tower learns to notice (what stands where, in which colour, how high is which bar), then the whole model
learns to answer, several questions a picture in one row; then the teacher learns to say how it gets to an answer, and
last to ask a question of a certain kind.
Resumable: a checkpoint every few minutes, and a batch is a function of its number.
"""

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import distributed
from torch.distributed.checkpoint.stateful import Stateful
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from transformers import FastVlmForConditionalGeneration, LlavaProcessor, get_cosine_schedule_with_warmup

from demo_models.build import (
    ASSISTANT,
    END,
    IMAGE,
    USER,
    build_model,
    build_processor,
    build_tokenizer,
    words_of_the_worlds,
)
from demo_models.lessons import Noticing, Talking, pass_on
from demo_models.schooling import (
    ASKED_A_PICTURE,
    CUES_A_PICTURE,
    EXPLAINED_A_PICTURE,
    FACTS_A_PICTURE,
    TRAINING_SEEDS,
    Lessons,
    SightLessons,
    Talk,
    TalkLessons,
    cued,
    student_was_shown,
    student_was_told,
)
from parityalign.config import TaskData
from parityalign.core.interfaces import RATIONALE_PROMPT
from parityalign.core.layout import EMBEDDED_MODELS
from parityalign.demo.canvas import Drawing, one_of_each_kind
from parityalign.demo.worlds import KINDS, WORLDS
from parityalign.tasks import load_task, task_of


@dataclass(frozen=True)
class Schedule:
    """How long a part of the training is."""

    steps: int
    batch_size: int
    """Pictures a step in each of the processes."""
    learning_rate: float


PROCESSES = 2
TOWER = {"teacher": Schedule(4500, 48, 2e-3), "student": Schedule(3000, 48, 3e-3)}
WHOLE = {"teacher": Schedule(4500, 12, 1e-3), "student": Schedule(2400, 12, 2e-3)}
EXPLAINING = {"teacher": Schedule(1500, 12, 5e-4)}
"""Goes on with all other lessons, so that nothing is forgotten."""
ASKING = {"teacher": Schedule(1500, 12, 5e-4)}
"""Likewise, explanations included."""
logger = logging.getLogger(__name__)
EXPLANATION = "Explanation:"
_CHECKPOINT_EVERY = 250
_PICTURES_FOR_SIGHTS = 6000


def first_whole_seed(name: str) -> int:
    """Where the whole model's pictures begin: those of the tower's training are not shown again."""
    tower = TOWER[name]
    return TRAINING_SEEDS.start + tower.steps * tower.batch_size * PROCESSES


def first_explained_seed(name: str) -> int:
    """Where the pictures begin on which a model learns to explain."""
    whole = WHOLE[name]
    return first_whole_seed(name) + whole.steps * whole.batch_size * PROCESSES


def first_asking_seed(name: str) -> int:
    """Where the pictures begin on which a model learns to ask for a kind."""
    explaining = EXPLAINING[name]
    return first_explained_seed(name) + explaining.steps * explaining.batch_size * PROCESSES


def kind_prompts() -> dict[str, dict[str, str]]:
    """{task: {kind of question: annotate prompt}}."""
    tasks = {name: task_of(name, TaskData(images=("none",), kinds=tuple(kinds))) for name, kinds in KINDS.items()}
    return {name: {kind: task.annotate_prompt_for(kind) for kind in task.kinds} for name, task in tasks.items()}


def sights_of_the_worlds() -> set[str]:
    """Every sight of enough pictures to have met nearly all."""
    seeds = range(_PICTURES_FOR_SIGHTS)
    return {sight for draw in WORLDS.values() for seed in seeds for sight in draw(Random(seed)).sights}


def talk_maker(
    processor: LlavaProcessor, *, student: bool = False, explained: int = 0, asked_by_kind: int = 0
) -> Callable[[str, Drawing, Random], list[Talk]]:
    """Turns a picture into questions with answers, cues and, for the teacher, the task's annotate prompt.

    Args:
        processor: Whose tokens are used.
        student: Whether only what the student is told is talked about.
        explained: Questions a picture whose answers are explained.
        asked_by_kind: Questions a picture that are asked for by their kind.
    """
    prompts = kind_prompts()
    tasks = {name: load_task(name, kinds=False) for name in WORLDS}

    def tokens(text: str) -> list[int]:
        ids: list[int] = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def talk(asked: str, said: str) -> Talk:
        return Talk(tokens(asked + ASSISTANT), tokens(said + END))

    def cue_talks(sights: Sequence[str], rng: Random) -> list[Talk]:
        found = sorted(item for item in cued(sights).items() if item[0])
        chosen = rng.sample(found, min(len(found), CUES_A_PICTURE))
        return [Talk(tokens(cue), tokens(rng.choice(sorted(names)))) for cue, names in chosen]

    def talks(name: str, picture: Drawing, rng: Random) -> list[Talk]:
        known = [fact for fact in picture.facts if not student or student_was_told(fact)]
        sights = [sight for sight in picture.sights if not student or student_was_shown(sight)]
        task = tasks[name]
        chosen = one_of_each_kind(known, rng)[:FACTS_A_PICTURE]
        turns = [talk(task.answer_prompt.format(question=fact.question), fact.answer) for fact in chosen]
        turns += cue_talks(sights, rng)
        if not student:
            told = one_of_each_kind(known, rng)[0]
            turns.append(talk(task.annotate_prompt, f"Question: {told.question} Answer: {told.answer}"))
        for kind in rng.sample(sorted(prompts[name]), asked_by_kind):
            # Where the picture has nothing of the kind, another question is better than one that it does not answer.
            fitting = [fact for fact in known if fact.kind in KINDS[name][kind]] or known
            wanted = one_of_each_kind(fitting, rng)[0]
            turns.append(talk(prompts[name][kind], f"Question: {wanted.question} Answer: {wanted.answer}"))
        for fact in one_of_each_kind(known, rng)[:explained]:
            asked = task.rationale_prompt.format(question=fact.question)
            turns.append(talk(asked, f"{EXPLANATION} {fact.because} Answer: {fact.answer}"))
        return turns

    return talks


def train(lesson: torch.nn.Module, lessons: Lessons, schedule: Schedule, checkpoint: Path) -> None:
    """AdamW with a cosine schedule in bf16, in every process of the group; goes on from the checkpoint if there is one.

    One single-threaded process a core, each drawing its own pictures, keeps two cores twice as busy as threads do.
    """
    learning = [weight for weight in lesson.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
    plan = get_cosine_schedule_with_warmup(optimizer, schedule.steps // 20, schedule.steps)
    start = _resumed(checkpoint, lesson, optimizer, plan)
    rank, world = distributed.get_rank(), distributed.get_world_size()
    shared = DistributedDataParallel(lesson.train())
    for step in range(start, schedule.steps):
        with torch.autocast("cpu", torch.bfloat16):
            loss = shared(lessons.batch(step * world + rank))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        plan.step()
        if rank == 0 and (step + 1) % 100 == 0:
            logger.info("%s step %d of %d loss %.4f", checkpoint.stem, step + 1, schedule.steps, loss.item())
        if rank == 0 and ((step + 1) % _CHECKPOINT_EVERY == 0 or step + 1 == schedule.steps):
            _save(checkpoint, step + 1, lesson, optimizer, plan)
    distributed.barrier()


def _save(checkpoint: Path, step: int, *parts: Stateful) -> None:
    partial = checkpoint.with_suffix(".partial")
    torch.save({"step": step, "parts": [part.state_dict() for part in parts]}, partial)
    os.replace(partial, checkpoint)


def _resumed(checkpoint: Path, *parts: Stateful) -> int:
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, weights_only=True)
    for part, saved in zip(parts, state["parts"], strict=True):
        part.load_state_dict(saved)
    return int(state["step"])


def train_model(rank: int, name: str, work: Path, out: Path, known: Path | None) -> None:
    """Trains `teacher` or `student` as one of `PROCESSES`, and saves a folder in half precision.

    Args:
        rank: Of this process.
        name: `teacher` or `student`.
        work: The checkpoints' folder.
        out: Gets the model.
        known: A teacher that lacks the last lessons alone. None: everything is taught.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    distributed.init_process_group("gloo", init_method=f"file://{work}/{name}-meeting", rank=rank, world_size=PROCESSES)
    processor = build_processor(build_tokenizer(words_of_the_worlds(), phrases_of(name)))
    tokenizer: Any = processor.tokenizer
    model: Any = build_model(name, len(tokenizer))
    if known:
        model = FastVlmForConditionalGeneration.from_pretrained(known, dtype=torch.float32)
        model.resize_token_embeddings(len(tokenizer))
    model = model.to(memory_format=torch.channels_last)
    model.set_attn_implementation("eager")  # PyTorch's fused one is slow on a CPU where rows have masks of their own
    prefix = tokenizer(USER + IMAGE * model.config.image_seq_length, add_special_tokens=False)["input_ids"]
    if not known:
        _teach(model, processor, prefix, name, work)
    if asking := ASKING.get(name):
        maker = talk_maker(processor, explained=EXPLAINED_A_PICTURE, asked_by_kind=ASKED_A_PICTURE)
        lessons = TalkLessons(prefix, maker, asking.batch_size, first_asking_seed(name))
        train(Talking(model), lessons, asking, work / f"{name}-asking.pt")
    if rank == 0:
        model.half().save_pretrained(out)
        processor.save_pretrained(out)


def phrases_of(name: str) -> list[str]:
    """The prompts that a model is taught word by word; those that were added last come last."""
    tasks = [load_task(task, kinds=False) for task in WORLDS]
    instruction = tasks[0].answer_prompt.format(question="").strip()
    phrases = [instruction, *(task.annotate_prompt for task in tasks), RATIONALE_PROMPT, EXPLANATION]
    by_kind = kind_prompts() if name in ASKING else {}
    return [*phrases, *(prompt for prompts in by_kind.values() for prompt in prompts.values())]


def _teach(model: Any, processor: LlavaProcessor, prefix: list[int], name: str, work: Path) -> None:  # noqa: ANN401
    """Teaches noticing, answering and explaining."""
    tower, whole = TOWER[name], WHOLE[name]
    sights = SightLessons(sights_of_the_worlds(), tower.batch_size)
    width = model.config.vision_config.hidden_size
    noticing = Noticing(model.model.vision_tower, width, len(sights.cues), len(sights.names))
    train(noticing, sights, tower, work / f"{name}-tower.pt")
    maker = talk_maker(processor, student=name == "student")
    lessons = TalkLessons(prefix, maker, whole.batch_size, first_whole_seed(name))
    pass_on(model, torch.cat([lessons.batch(number).pixels for number in range(1200 // whole.batch_size)]))
    train(Talking(model), lessons, whole, work / f"{name}-whole.pt")
    if explaining := EXPLAINING.get(name):
        maker = talk_maker(processor, explained=EXPLAINED_A_PICTURE)
        lessons = TalkLessons(prefix, maker, explaining.batch_size, first_explained_seed(name))
        train(Talking(model), lessons, explaining, work / f"{name}-explaining.pt")


def main() -> None:
    """`python -m demo_models.recipe NAME --work FOLDER --out FOLDER [--known FOLDER]`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(WHOLE))
    parser.add_argument("--work", type=Path, default=Path("build/embedded"), help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, default=EMBEDDED_MODELS, help="folder that gets a folder of this name")
    parser.add_argument("--known", type=Path, help="a teacher that has learnt all but to ask by kind")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    (given.work / f"{given.name}-meeting").unlink(missing_ok=True)
    arguments = (given.name, given.work.absolute(), given.out.absolute() / given.name, given.known)
    spawn(train_model, arguments, nprocs=PROCESSES)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
