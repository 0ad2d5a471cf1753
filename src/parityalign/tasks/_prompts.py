"""Texts that all skills share. The embedded models are trained on exactly these."""

from parityalign.core import KIND_FIELD

FORM = "Reply in this form only. Question: <your question> Answer: <your answer>"
"""The end of every annotate prompt; `stages.parsing.read_pair` parses the reply."""

RATIONALE_FORM = "Reply in this form only. Explanation: <your explanation> Answer: <your answer>"
"""The same for rationale prompts; `stages.parsing.read_rationale` parses the reply."""

ANSWER_PROMPT = "{question}\nAnswer the question using a single word or phrase."
"""The answer prompt of every skill, as in the fine-tuning data of most open models."""


_FORM_LINE = f"\n{FORM}"
_OF_KIND = f" The question should be of this kind: {KIND_FIELD}."


def annotate_prompt(request: str) -> str:
    """A skill's own sentence, followed by the form of the reply."""
    return f"{request}{_FORM_LINE}"


def with_form(prompt: str) -> str:
    """A user's prompt, followed by the form of the reply unless it asks for `Question:` and `Answer:` itself."""
    asked = prompt.casefold()
    return prompt if "question:" in asked and "answer:" in asked else annotate_prompt(prompt.rstrip())


def with_rationale_form(prompt: str) -> str:
    """A user's prompt, followed by the form of the reply unless it asks for `Answer:` itself."""
    return prompt if "answer:" in prompt.casefold() else f"{prompt.rstrip()}\n{RATIONALE_FORM}"


def with_kind(prompt: str) -> str:
    """The prompt with a sentence that asks for a kind of question, before the form of the reply, unless it has one."""
    if KIND_FIELD in prompt:
        return prompt
    request, form, rest = prompt.partition(_FORM_LINE)
    return f"{request}{_OF_KIND}{form}{rest}"
