"""Any vision-language model of transformers, from a Hugging Face folder or hub id, run in this process."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache
from transformers import GenerationConfig, PreTrainedModel

from parityalign.config import LoadingSettings
from parityalign.core import EMBEDDED_MODELS, Decoding, Observation, Request, WorkFailed
from parityalign.models import memory
from parityalign.models.backends._batches import BatchRow, Budget, windows
from parityalign.models.backends._decoding import (
    NotFinite,
    Suffixes,
    Written,
    can_choose_rows,
    can_share_prefixes,
    decode,
)
from parityalign.models.backends._drawing import Draws
from parityalign.models.backends._generate import refuse_unknown_generate
from parityalign.models.backends._observing import Observing
from parityalign.models.backends._prefixes import SplitPrompts, split_prompts
from parityalign.models.backends._reading import Reader
from parityalign.models.chat_templates import opened_thought
from parityalign.models.device import SMALLER, device_of, is_out_of_memory
from parityalign.models.encoding import Processor, Prompter, stop_tokens
from parityalign.models.families import refuse_mixed_up
from parityalign.models.features import PictureFeatures
from parityalign.models.gpu_memory import with_who_holds_it
from parityalign.models.labels import LabelEncoder
from parityalign.models.loading import AS_IT_IS, described, open_model, open_processor
from parityalign.models.parts import image_token
from parityalign.models.picture_processes import PictureProcesses
from parityalign.models.pictures import Pictures, processes_for
from parityalign.models.stacking import stack

T = TypeVar("T")


def load_hf(location: str, loading: LoadingSettings = AS_IT_IS) -> "HFModel":
    """Loads the model in a folder or on the hub.

    Raises:
        UserError: It is missing or is not a vision-language model with safetensors, processor and chat template; or
            the installed transformers generates in an unknown way; or its family, an unchecked one, mixes pictures up.
    """
    refuse_unknown_generate()
    processor = open_processor(location, loading)
    processes = processes_for(location, loading)  # they are ready when the model is
    with ExitStack() as on_failure:
        if processes:
            on_failure.callback(processes.close)
        made = HFModel(location, open_model(location, loading), processor, workers=loading.workers, processes=processes)
        made.refuse_mixed_up()
        on_failure.pop_all()
    return made


class HFModel:
    """A `Model` and `Observer` that runs in this process.

    Attributes:
        name: `embedded:NAME` for a bundled model, else `hf:` and the location as it was given.
        facts: What its outputs depend on besides its files, for manifests.
    """

    def __init__(
        self,
        location: str,
        model: PreTrainedModel,
        processor: Processor,
        *,
        workers: int | None = None,
        processes: PictureProcesses | None = None,
    ) -> None:
        path = Path(location)
        self.name = f"embedded:{path.name}" if path.parent == EMBEDDED_MODELS else f"hf:{location}"
        self.facts = described(model, processor)
        self._model: Any = model
        self._device = device_of(model)
        self._tokenizer = processor.tokenizer
        self._processor = processor
        self._prompter = Prompter(processor, self.name)
        self._features = PictureFeatures(model, self._prompter)
        pictures = Pictures(self._prompter, workers, processes=processes)
        self._reader = Reader(pictures, self._features, self._device.type)
        self._begun = opened_thought(self._prompter)
        self._stop = stop_tokens(self._tokenizer, self._model.generation_config)
        self._shares = can_choose_rows(model)
        # An answer's own types tell of a prompt whose tokens see each other in both directions.
        self._splits = can_share_prefixes(model) and not self._prompter.answer_marks
        pad = self._tokenizer.pad_token_id
        self._pad = pad if pad is not None else (self._stop or [0])[0]
        # Replaced, so that the folder's defaults (temperature, penalties) do not override the caller's decoding.
        ends = {"eos_token_id": self._stop or None, "pad_token_id": self._pad}
        self._model.generation_config = GenerationConfig.from_dict(ends)
        self._budget = Budget(self.name, model)

    @property
    def special_tokens(self) -> frozenset[str]:
        """Texts that the processor would not read as plain text, such as the image placeholder."""
        return self._prompter.special_tokens

    def refuse_mixed_up(self) -> None:
        """Tries a model of a family that nobody has checked.

        Raises:
            UserError: In a batch it says something else than alone.
        """
        refuse_mixed_up(self.name, self._model, self._prompter, self._pad)

    def close(self) -> None:
        """Gives up the pictures that are being prepared."""
        self._reader.close()

    def expect(self, requests: Sequence[Request]) -> None:
        """Announces the requests after the next call of `generate`; their images are read during that call."""
        self._reader.expect(requests)

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[str]:
        """The reply to each request, in order, including special tokens that the model wrote.

        Either all requests have a picture or none has.

        Where the chat template begins a thought, so does the reply: nobody could tell it from speech otherwise.

        Raises:
            WorkFailed: An image cannot be read, the model's outputs are not finite, or one question alone does not fit
                into memory.
        """
        return [text for text, _ in self.generate_scored(requests, decoding)]

    def generate_scored(self, requests: Sequence[Request], decoding: Decoding) -> list[tuple[str, float]]:
        """Likewise, each with its log-probability, summed over its tokens."""
        size = decoding.max_new_tokens
        return self._each(requests, size, lambda rows: self._write(rows, decoding))

    def parameters(self) -> int:
        """Number of parameters."""
        return int(self._model.num_parameters())

    def fits_twice(self) -> bool:
        """Whether there is memory left for another model of this size."""
        return memory.fits_twice(self._model)

    def peak_bytes(self, work: Callable[[], object]) -> int | None:
        """Does the work and returns the peak memory meanwhile, weights included."""
        return memory.peak_bytes(self._model, work)

    def observe(self, told: Sequence[tuple[Request, str]]) -> list[Observation | None]:
        """Scores each request teacher-forced: followed by the given text as if it were the model's own reply.

        Raises:
            WorkFailed: An image cannot be read, the model's outputs are not finite, or one question alone does not fit
                into memory.
        """
        longest = max((len(text) for _, text in told), default=0)  # in characters; tokens are fewer

        def work(rows: Sequence[BatchRow]) -> list[Observation | None]:
            answered = [self._encoder.encode(row.encoded, row.request.prompt, told[row.place][1]) for row in rows]
            told_rows = [row._replace(encoded=labelled.encoded) for row, labelled in zip(rows, answered, strict=True)]
            inputs = self._inputs(told_rows, side="right")
            seen = self._observing.observe(answered, inputs)
            for row, observed in zip(rows, seen, strict=True):
                if np.isnan(observed.logprobs).any():
                    raise self._not_finite(row)
            return [*seen]

        return self._each([request for request, _ in told], longest, work)

    @cached_property
    def _encoder(self) -> LabelEncoder:
        return LabelEncoder(self._processor, self._stop)

    @cached_property
    def _observing(self) -> Observing:
        return Observing(self._model, self._processor)

    def _each(
        self, requests: Sequence[Request], size: int, work: Callable[[Sequence[BatchRow]], Sequence[T]]
    ) -> list[T]:
        """What `work` makes of each request, in order, as many at a time as memory takes with replies of this size."""
        found: dict[int, T] = {}
        rows = zip(range(len(requests)), requests, self._reader.read(requests), strict=True)
        for waiting in windows(map(BatchRow._make, rows), self._device.type):
            while waiting:
                batch = waiting[: self._budget.first(waiting, size)]
                try:
                    made = work(batch)
                except (RuntimeError, MemoryError) as problem:
                    if not is_out_of_memory(problem):
                        raise
                    made = None
                if made is None:
                    self._take_fewer(batch, size)
                    continue
                self._budget.fitted()
                found |= zip((row.place for row in batch), made, strict=True)
                del waiting[: len(batch)]
        return [found[place] for place in range(len(requests))]

    def _take_fewer(self, rows: Sequence[BatchRow], size: int) -> None:
        """Halves the batches from now on; what the failed one held is free by now, as its error is gone."""
        clear_device_cache(garbage_collection=True)
        self._budget.halve(rows, size)
        if len(rows) == 1:
            advice = f"{SMALLER} What was answered before is kept."
            raise WorkFailed(
                f"{self.name} has not enough memory on {self._device} for a single question, about "
                f"{rows[0].request.image} ({len(rows[0].encoded.tokens)} tokens and a reply of up to "
                f"{size}).\n{with_who_holds_it(advice, self._device.type)}"
            )

    def _write(self, rows: Sequence[BatchRow], decoding: Decoding) -> list[tuple[str, float]]:
        prompts, prompt_of = self._prompts(rows)
        split = split_prompts(prompts, image_token(self._model.config)) if self._splits else None
        draws = None
        if decoding.temperature > 0:
            draws = Draws([row.request.seed for row in rows], decoding, self._device)
        try:
            with torch.inference_mode():
                written: list[Written] = self._model.generate(
                    **self._inputs(split.prefixes if split else prompts),
                    max_new_tokens=decoding.max_new_tokens,
                    do_sample=False,
                    custom_generate=decode,
                    prompts=prompt_of,
                    draws=draws,
                    suffixes=self._suffixes(split) if split else None,
                )
        except NotFinite as problem:
            raise self._not_finite(rows[problem.row]) from problem
        return [(self._text(row.tokens), row.logprob) for row in written]

    def _not_finite(self, row: BatchRow) -> WorkFailed:
        dtype = str(self._model.dtype).removeprefix("torch.")
        return WorkFailed(
            f"{self.name} computes no numbers in {dtype}: what it makes of {row.request.image} is not finite (NaN or "
            "infinite), so no reply can be told from it.\nFloat16 overflows where bfloat16 and float32 do not: set "
            "`dtype` in this model's `loading` to one of these. If it is one already, the weights are damaged."
        )

    def _prompts(self, rows: Sequence[BatchRow]) -> tuple[list[BatchRow], list[int]]:
        """The rows that differ in image or prompt, and for each row its place among them."""
        if not self._shares:
            return list(rows), list(range(len(rows)))
        asked = [(row.request.image, row.request.prompt) for row in rows]
        distinct = dict(zip(asked, rows, strict=True))
        places = {key: place for place, key in enumerate(distinct)}
        return list(distinct.values()), [places[key] for key in asked]

    def _suffixes(self, split: SplitPrompts) -> Suffixes:
        inputs = stack(split.suffixes, pad_token=self._pad, side="left", **self._where)
        prefixes = torch.tensor(split.prefix_of, device=self._device)
        return Suffixes(prefixes, inputs["input_ids"], inputs["attention_mask"])

    def _text(self, tokens: list[int]) -> str:
        end = next((i for i, token in enumerate(tokens) if token in self._stop), len(tokens))
        kept = [token for token in tokens[:end] if token != self._pad]
        return self._begun + self._tokenizer.decode(kept, skip_special_tokens=False).strip()

    def _inputs(self, rows: Sequence[BatchRow], side: Literal["left", "right"] = "left") -> dict[str, Any]:
        """What the model takes, padded at one side; each picture's features are computed once if possible."""
        paths, encoded = [row.request.image for row in rows], [row.encoded for row in rows]
        encoded, features = self._features.in_place_of_pixels(paths, encoded)
        return stack(encoded, pad_token=self._pad, side=side, **self._where) | features

    @property
    def _where(self) -> dict[str, Any]:
        """Device and precision of the model's inputs."""
        return {"device": self._device, "dtype": self._model.dtype}
