"""A model's input with the answer after the prompt, the same for training and for scoring.

The prompt's tokens are those of inference, followed by the answer's tokens and the end token.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from parityalign.core import UserError
from parityalign.models.encoding import Encoded, Processor, Prompter

IGNORE_INDEX = -100
"""Label of a token without loss, as in torch's cross-entropy."""
_PROBE = ("What is it?", "42")


@dataclass(frozen=True)
class LabelledRow:
    """A prompt with an answer."""

    encoded: Encoded
    """The whole row; its `labels` hold the answer's tokens and the end token, else `IGNORE_INDEX`."""
    ends: list[int]
    """For each labelled token: its end in the answer's text, in characters."""


class LabelEncoder:
    """Appends answers to prompts for one model.

    Attributes:
        prompter: Writes the prompts.
        lead: Text of the chat template between the generation prompt and the answer; usually empty.
        end_token: The id that ends an answer in training and stops generation.
        pad_token: The id of padding.
    """

    def __init__(self, processor: Processor, stop: Collection[int]) -> None:
        """Detects how the chat template ends an answer.

        Args:
            processor: The model's.
            stop: The ids that stop its generation.

        Raises:
            UserError: The model has no end token.
        """
        tokenizer = processor.tokenizer
        if not stop:
            raise UserError(
                f"the model's tokenizer ({type(tokenizer).__name__}) and generation_config.json name no "
                "end token. Set eos_token_id in generation_config.json."
            )
        self.prompter = Prompter(processor)
        self.lead, tail = _around_answer(self.prompter)
        written = tokenizer(tail, add_special_tokens=False)["input_ids"] if tail else []
        usual = [token for token in stop if token == tokenizer.eos_token_id]
        self.end_token: int = next(token for token in (*written, *usual, *stop) if token in stop)
        pad = tokenizer.pad_token_id
        self.pad_token: int = pad if pad is not None else self.end_token

    def encode(self, encoded: Encoded, prompt: str, answer: str) -> LabelledRow:
        """The row of a prompt with its answer.

        Args:
            encoded: The encoded prompt, from `prompter.encode`.
            prompt: Its text.
            answer: The answer's text.
        """
        said = self.prompter.answer_pieces(encoded, prompt, self.lead, answer)
        tokens = [*said.ids, self.end_token]
        marks = self.prompter.answer_marks
        row = {key: values + [marks.get(key, 0)] * len(tokens) for key, values in encoded.per_token.items()}
        row["input_ids"] = encoded.tokens + tokens
        row["labels"] = [IGNORE_INDEX] * len(encoded.tokens) + tokens
        return LabelledRow(replace(encoded, per_token=row), [*said.ends, len(answer)])


def _around_answer(prompter: Prompter) -> tuple[str, str]:
    """Texts that the chat template writes before and after an answer, beyond the generation prompt."""
    asked, whole = prompter.chat(_PROBE[0]), prompter.chat(*_PROBE)
    lead, found, tail = whole[len(asked) :].partition(_PROBE[1])
    if not whole.startswith(asked) or not found or lead.strip():
        return "", ""
    return lead, tail
