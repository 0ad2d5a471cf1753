"""What all tasks say in the same words. The embedded models are trained on exactly these texts."""

FORM = "Reply in this form only. Question: <your question> Answer: <your answer>"
"""Ends every annotate prompt; `parsing.read_pair` reads the form."""

ANSWER_PROMPT = "{question}\nAnswer the question using a single word or phrase."
"""The answer prompt of every task, as in the fine-tuning data of most open models."""


def annotate_prompt(request: str) -> str:
    """The task's own sentence, then the form of the reply."""
    return f"{request}\n{FORM}"
