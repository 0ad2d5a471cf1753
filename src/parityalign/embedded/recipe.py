"""Trains the embedded teacher and student from nothing: `python -m parityalign.embedded.recipe teacher`.

First the tower learns to notice (a multi-label target that says what stands where and in which colour), then the
whole model learns to answer, several questions a picture in one row. Resumable: a checkpoint every few minutes,
and a batch is a function of its number.
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
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from transformers import FastVlmForConditionalGeneration, LlavaProcessor, get_cosine_schedule_with_warmup

from parityalign.embedded.build import (
    ASSISTANT,
    END,
    IMAGE,
    USER,
    build_model,
    build_processor,
    build_tokenizer,
    words_of_the_worlds,
)
from parityalign.embedded.canvas import Fact, one_of_each_kind
from parityalign.embedded.schooling import (
    FACTS_A_PICTURE,
    TRAINING_SEEDS,
    Lessons,
    SightBatch,
    SightLessons,
    Talk,
    TalkBatch,
    TalkLessons,
    student_was_told,
    visible,
)
from parityalign.embedded.worlds import WORLDS
from parityalign.plugins import EMBEDDED_MODELS, load_task


@dataclass(frozen=True)
class Schedule:
    """How long a part of the training is."""

    steps: int
    batch_size: int
    """Pictures a step in each of the processes."""
    learning_rate: float


PROCESSES = 2
TOWER = {"teacher": Schedule(4500, 48, 2e-3), "student": Schedule(2500, 48, 3e-3)}
WHOLE = {"teacher": Schedule(4500, 12, 1e-3), "student": Schedule(2400, 12, 2e-3)}
TOWER_RATE = 0.1
"""Share of the learning rate that the tower gets while the whole model is trained."""
logger = logging.getLogger(__name__)
_CHECKPOINT_EVERY = 250
_PICTURES_FOR_SIGHTS = 6000


def sights_of_the_worlds() -> list[str]:
    """Every sight of enough pictures to have met nearly all; sorted."""
    sights: set[str] = set()
    for draw in WORLDS.values():
        for seed in range(_PICTURES_FOR_SIGHTS):
            sights.update(draw(Random(seed)).sights)
    return sorted(sights)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Bytes to the processor's scale (mean and deviation 0.5), channels last, which convolutions on a CPU like."""
    return (pixels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


class Noticing(torch.nn.Module):
    """The tower with a head that scores every sight from the mean and the maximum of the map; gives the loss.

    The loss is the cross-entropy of a softmax over all sights against those that are there (Mahajan et al. 2018,
    section 2). Independent yes-or-no targets stay long at "nothing is there", since each of the sights is rare.
    """

    def __init__(self, tower: torch.nn.Module, width: int, sights: int) -> None:
        super().__init__()
        self.tower = tower
        self.head = torch.nn.Linear(2 * width, sights)

    def scores(self, pixels: torch.Tensor) -> torch.Tensor:
        """(pictures, 3, SIDE, SIDE) bytes -> (pictures, sights) logits."""
        seen = self.tower(normalised(pixels)).last_hidden_state.flatten(2)
        scores: torch.Tensor = self.head(torch.cat([seen.mean(2), seen.amax(2)], dim=1))
        return scores.float()

    def forward(self, batch: SightBatch) -> torch.Tensor:
        """The loss of a batch."""
        logs = functional.log_softmax(self.scores(batch.pixels), dim=1)
        return -(logs * batch.sights).sum() / batch.sights.sum()


class Talking(torch.nn.Module):
    """The whole model; gives the mean negative log-likelihood of the answers' tokens.

    Each question sees only the picture and itself, so a packed row teaches what its questions would teach alone.
    """

    def __init__(self, model: FastVlmForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: TalkBatch) -> torch.Tensor:
        """The loss of a batch."""
        model = self.model
        seen = model.get_image_features(pixel_values=normalised(batch.pixels)).pooler_output
        embedded = model.get_input_embeddings()(batch.tokens)
        places = batch.tokens == model.config.image_token_id
        embedded = embedded.masked_scatter(places[..., None], seen.to(embedded.dtype))
        hidden = model.model.language_model(
            inputs_embeds=embedded,
            attention_mask=visible(batch.segments),
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state
        wanted = batch.labels[:, 1:] != -100
        logits = model.lm_head(hidden[:, :-1][wanted])
        return functional.cross_entropy(logits.float(), batch.labels[:, 1:][wanted])


def talk_maker(processor: LlavaProcessor, student: bool) -> Callable[[str, Sequence[Fact], Random], list[Talk]]:
    """Turns the facts of a picture into questions with answers and, for the teacher, the task's annotate prompt."""
    tasks = {name: load_task(name) for name in WORLDS}

    def tokens(text: str) -> list[int]:
        ids: list[int] = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def talk(asked: str, said: str) -> Talk:
        return Talk(tokens(asked + ASSISTANT), tokens(said + END))

    def talks(name: str, facts: Sequence[Fact], rng: Random) -> list[Talk]:
        known = [fact for fact in facts if student_was_told(fact)] if student else list(facts)
        task = tasks[name]
        chosen = one_of_each_kind(known, rng)[:FACTS_A_PICTURE]
        turns = [talk(task.answer_prompt.format(question=fact.question), fact.answer) for fact in chosen]
        if not student:
            told = one_of_each_kind(known, rng)[0]
            turns.append(talk(task.annotate_prompt, f"Question: {told.question} Answer: {told.answer}"))
        return turns

    return talks


def train(lesson: torch.nn.Module, lessons: Lessons, schedule: Schedule, checkpoint: Path) -> None:
    """AdamW with a cosine schedule in bf16, in every process of the group; goes on from the checkpoint if there is one.

    One single-threaded process a core, each drawing its own pictures, keeps two cores twice as busy as threads do.
    """
    optimizer = torch.optim.AdamW(_groups(lesson, schedule), betas=(0.9, 0.98), weight_decay=0.02)
    plan = get_cosine_schedule_with_warmup(optimizer, schedule.steps // 20, schedule.steps)
    start = _resumed(checkpoint, lesson, optimizer, plan)
    rank, world = distributed.get_rank(), distributed.get_world_size()
    shared = DistributedDataParallel(lesson.train())
    for step in range(start, schedule.steps):
        with torch.autocast("cpu", torch.bfloat16):
            loss = shared(lessons.batch(step * world + rank))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(lesson.parameters(), 1.0)
        optimizer.step()
        plan.step()
        if rank == 0 and (step + 1) % 100 == 0:
            logger.info("%s step %d of %d loss %.4f", checkpoint.stem, step + 1, schedule.steps, loss.item())
        if rank == 0 and ((step + 1) % _CHECKPOINT_EVERY == 0 or step + 1 == schedule.steps):
            _save(checkpoint, step + 1, lesson, optimizer, plan)
    distributed.barrier()


def whiten(model: FastVlmForConditionalGeneration, pixels: torch.Tensor) -> None:
    """Starts the projector so that every direction of the tower's features has the same spread.

    Words light up few channels strongly, colours many channels faintly; behind the language model's norms the faint
    ones would go unseen for a long time.

    Args:
        model: Whose tower has been trained; its projector's weights are set.
        pixels: (pictures, 3, SIDE, SIDE) bytes, enough to estimate a covariance of the tower's width.
    """
    first, second = model.model.multi_modal_projector.linear_1, model.model.multi_modal_projector.linear_2
    model.train(False)
    with torch.no_grad():
        tokens = model.model.vision_tower(normalised(pixels)).last_hidden_state.flatten(2).transpose(1, 2).flatten(0, 1)
        mean = tokens.mean(0)
        spread, directions = torch.linalg.eigh(torch.cov(tokens.T))
        whitening = directions / (spread + 1e-3 * spread.max()).sqrt()
        turned = torch.nn.init.orthogonal_(torch.empty_like(first.weight))
        first.weight.copy_(turned @ whitening.T)
        first.bias.copy_(-first.weight @ mean)
        torch.nn.init.normal_(second.weight, std=second.in_features**-0.5)


def _groups(lesson: torch.nn.Module, schedule: Schedule) -> list[dict[str, Any]]:
    """A tower that has learnt to notice goes on slowly: at the full rate it forgets colours in the first minutes."""
    slow = [weight for name, weight in lesson.named_parameters() if ".vision_tower." in name]
    fast = [weight for name, weight in lesson.named_parameters() if ".vision_tower." not in name]
    rates = ((slow, schedule.learning_rate * TOWER_RATE), (fast, schedule.learning_rate))
    return [{"params": weights, "lr": rate} for weights, rate in rates if weights]


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


def train_model(rank: int, name: str, work: Path, out: Path) -> None:
    """Trains `teacher` or `student` as one of `PROCESSES`, and saves a folder in half precision."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    distributed.init_process_group("gloo", init_method=f"file://{work}/{name}-meeting", rank=rank, world_size=PROCESSES)
    tasks = [load_task(task) for task in WORLDS]
    instruction = tasks[0].answer_prompt.format(question="").strip()
    phrases = [instruction, *(task.annotate_prompt for task in tasks)]
    tokenizer: Any = build_tokenizer(words_of_the_worlds(), phrases)
    processor = build_processor(tokenizer)
    model: Any = build_model(name, len(tokenizer))
    model = model.to(memory_format=torch.channels_last)
    sights = sights_of_the_worlds()
    noticing = Noticing(model.model.vision_tower, model.config.vision_config.hidden_size, len(sights))
    tower, whole = TOWER[name], WHOLE[name]
    train(noticing, SightLessons(sights, tower.batch_size), tower, work / f"{name}-tower.pt")
    prefix = tokenizer(USER + IMAGE * model.config.image_seq_length, add_special_tokens=False)["input_ids"]
    # Fresh pictures: those of the tower's training are not shown again.
    first = TRAINING_SEEDS.start + tower.steps * tower.batch_size * PROCESSES
    lessons = TalkLessons(prefix, talk_maker(processor, name == "student"), whole.batch_size, first)
    whiten(model, torch.cat([lessons.batch(number).pixels for number in range(1200 // whole.batch_size)]))
    train(Talking(model), lessons, whole, work / f"{name}-whole.pt")
    if rank == 0:
        model.half().save_pretrained(out)
        processor.save_pretrained(out)


def main() -> None:
    """`python -m parityalign.embedded.recipe NAME --work FOLDER --out FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(WHOLE))
    parser.add_argument("--work", type=Path, default=Path("build/embedded"), help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, default=EMBEDDED_MODELS, help="folder that gets a folder of this name")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    (given.work / f"{given.name}-meeting").unlink(missing_ok=True)
    arguments = (given.name, given.work.absolute(), given.out.absolute() / given.name)
    spawn(train_model, arguments, nprocs=PROCESSES)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
