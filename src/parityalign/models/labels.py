"""A model's input with its answer behind the prompt: one way, for training and for scoring.

The prompt's tokens are those of inference. Behind them stand the answer's tokens and the token that ends a reply.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from parityalign.core import UserError
from parityalign.models.encoding import Encoded, Processor, Prompter

IGNORE_INDEX = -100
"""Label of a token that is not to be learnt, as torch's cross-entropy has it."""
_PROBE = ("What is it?", "42")


@dataclass(frozen=True)
class LabelledRow:
    """A prompt with an answer."""

    encoded: Encoded
    """The whole row; its `labels` hold the answer's tokens and the end token, else `IGNORE_INDEX`."""
    ends: list[int]
    """For each labelled token: where in the answer's text it ends, in characters."""


class LabelEncoder:
    """Writes answers behind prompts for one model.

    Attributes:
        prompter: Writes the prompts.
        lead: What the chat template writes between the place for the answer and the answer; mostly nothing.
        end_token: The id that ends an answer in training and stops generation.
        pad_token: The id that fills rows up.
    """

    def __init__(self, processor: Processor, stop: Collection[int]) -> None:
        """Finds out how the chat template ends an answer.

        Args:
            processor: The model's.
            stop: The ids that stop its generation.

        Raises:
            UserError: Nothing stops the model, so there is no end to an answer.
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
            encoded: The prompt's, from `prompter.encode`.
            prompt: The text that it was made of.
            answer: What the model is to say.
        """
        said = self.prompter.answer_pieces(encoded, prompt, self.lead, answer)
        tokens = [*said.ids, self.end_token]
        marks = self.prompter.answer_marks
        row = {key: values + [marks.get(key, 0)] * len(tokens) for key, values in encoded.per_token.items()}
        row["input_ids"] = encoded.tokens + tokens
        row["labels"] = [IGNORE_INDEX] * len(encoded.tokens) + tokens
        return LabelledRow(replace(encoded, per_token=row), [*said.ends, len(answer)])


def _around_answer(prompter: Prompter) -> tuple[str, str]:
    """What the chat template writes before and after an answer, beyond the prompt that asks for it."""
    asked, whole = prompter.chat(_PROBE[0]), prompter.chat(*_PROBE)
    lead, found, tail = whole[len(asked) :].partition(_PROBE[1])
    if not whole.startswith(asked) or not found or lead.strip():
        return "", ""
    return lead, tail
