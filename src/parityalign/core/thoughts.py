"""Where in a text a reasoning model thinks, by the marks of the common families."""

import re


def without_thoughts(reply: str) -> str | None:
    """The reply without what a reasoning model thinks before it speaks; None if a thought has no end.

    A thought may begin in the prompt, so all that precedes an end without a beginning is one.
    """
    spoken: list[str] = []
    start, thinking = 0, False
    for mark in _MARK.finditer(reply):
        if mark.lastgroup == "ends":
            spoken = spoken if thinking else []
            start, thinking = mark.end(), False
        elif not thinking:
            spoken.append(reply[start : mark.start()])
            thinking = True
    return None if thinking else "\n".join([*spoken, reply[start:]])


def open_thought(text: str) -> str:
    """The mark with which a text's last thought begins, if that has no end; else empty.

    >>> open_thought("<|assistant|>\\n<think>\\n")
    '<think>'
    """
    last = None
    for mark in _MARK.finditer(text):
        last = mark
    return last[0] if last and last.lastgroup == "begins" else ""


_NAMES = "think|thinking|thoughts?|reasoning|reflection"
# Qwen, GLM and many more; Magistral; Kimi; the channels of gpt-oss.
_MARK = re.compile(
    rf"(?P<begins><(?:{_NAMES})>|\[THINK\]|◁think▷|<\|channel\|>(?:analysis|commentary)<\|message\|>)"
    rf"|(?P<ends></(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>)",
    re.IGNORECASE,
)
