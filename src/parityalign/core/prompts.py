"""Which fields a prompt may hold; checked before any model is asked."""

from string import Formatter

QUESTION_FIELD = "{question}"
KIND_FIELD = "{kind}"


def fault_of_answer_prompt(prompt: object) -> str:
    """What is wrong with a format string for `{question}`, in words; empty if nothing."""
    if not isinstance(prompt, str):
        return f"is {prompt!r}, not a text"
    try:
        fields = {f"{field}!" if form or change else field for _, field, form, change in Formatter().parse(prompt)}
    except ValueError as problem:
        return f"is {prompt!r}, which has a stray brace ({problem}); write {{{{ or }}}} for a brace of the text"
    if fields - {None} == {"question"}:
        return ""
    return (
        f"is {prompt!r}; it has to hold the field {QUESTION_FIELD} and no other; write {{{{ or }}}} for a brace of the "
        "text"
    )


def fault_of_annotate_prompt(prompt: str) -> str:
    """What is wrong with a text that may hold `{kind}`, in words; empty if nothing."""
    if not prompt.strip():
        return f"is {prompt!r}, which is empty"
    if {"{", "}"} & {*prompt.replace(KIND_FIELD, "")}:
        return f"is {prompt!r}; it may hold the field {KIND_FIELD}, and no other field or brace"
    return ""
