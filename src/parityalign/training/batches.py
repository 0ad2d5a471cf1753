"""Training rows and batches: the prompt exactly as in inference, the loss on the answer and its end token only."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from parityalign.errors import UserError
from parityalign.prompting import Array, Encoded, Processor, Prompter, read_image, stack

CACHE_BYTES = 2**30
"""Memory for images that were decoded before."""
_PROBE = ("What is it?", "42")


@dataclass(frozen=True)
class Example:
    """What the student is to learn from one pair."""

    image: str
    """Path of the image file."""
    prompt: str
    """The task's answer prompt with the question in it."""
    answer: str


class AnswerBatches:
    """Collates examples into batches padded at the right, for a data loader.

    Attributes:
        lead: What the chat template writes between the place for the answer and the answer; mostly nothing.
        end_token: The id that ends an answer in training and stops generation.
    """

    def __init__(self, processor: Processor, stop: Collection[int], *, cache_bytes: int = CACHE_BYTES) -> None:
        """Finds out how the chat template ends an answer.

        Args:
            processor: The student's.
            stop: The ids that stop its generation.
            cache_bytes: Memory for images that were decoded before.

        Raises:
            UserError: Nothing stops the student, so it could not learn to end an answer.
        """
        self._prompter = Prompter(processor)
        self._cache_left = cache_bytes
        self._images: dict[str, dict[str, Array]] = {}
        self._rows: dict[Example, dict[str, list[int]]] = {}
        tokenizer = processor.tokenizer
        if not stop:
            raise UserError(
                f"the student's tokenizer ({type(tokenizer).__name__}) and generation_config.json name no "
                "end token. Set eos_token_id in generation_config.json."
            )
        self.lead, tail = _around_answer(self._prompter)
        written = tokenizer(tail, add_special_tokens=False)["input_ids"] if tail else []
        usual = [token for token in stop if token == tokenizer.eos_token_id]
        self.end_token: int = next(token for token in (*written, *usual, *stop) if token in stop)
        pad = tokenizer.pad_token_id
        self._pad: int = pad if pad is not None else self.end_token

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """The model's inputs and `labels` (rows, tokens): the answer's tokens and the end token, else -100."""
        batch = stack([self.encode(example) for example in examples], pad_token=self._pad, side="right")
        tensors = {key: torch.from_numpy(array) for key, array in batch.items()}
        return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}

    def encode(self, example: Example) -> Encoded:
        """One row, its pixels in half precision: they come from 8 bits, and twice as many fit into memory."""
        image = self._images.get(example.image)
        row = self._rows.get(example)
        if image is None or row is None:
            prompt = self._prompter.encode(read_image(example.image), example.prompt)
            image = {key: _halved(array) for key, array in prompt.image.items()}
            row = self._with_answer(prompt, example)
            self._rows[example] = row
            self._keep(example.image, image)
        return Encoded(row, image)

    def _with_answer(self, prompt: Encoded, example: Example) -> dict[str, list[int]]:
        answer = [*self._prompter.answer_tokens(example.prompt, self.lead, example.answer), self.end_token]
        row = {key: values + [0] * len(answer) for key, values in prompt.per_token.items()}
        row["input_ids"] = prompt.tokens + answer
        row["labels"] = [-100] * len(prompt.tokens) + answer
        return row

    def _keep(self, path: str, image: dict[str, Array]) -> None:
        """Keeps an image if there is room; none makes way, since in a shuffled epoch all are as likely to be next."""
        size = sum(array.nbytes for array in image.values())
        if path not in self._images and size <= self._cache_left:
            self._images[path] = image
            self._cache_left -= size


def _around_answer(prompter: Prompter) -> tuple[str, str]:
    """What the chat template writes before and after an answer, beyond the prompt that asks for it."""
    asked, whole = prompter.chat(_PROBE[0]), prompter.chat(*_PROBE)
    lead, found, tail = whole[len(asked) :].partition(_PROBE[1])
    if not whole.startswith(asked) or not found or lead.strip():
        return "", ""
    return lead, tail


def _halved(array: Array) -> Array:
    return array.astype(np.float16) if array.dtype == np.float32 else array
