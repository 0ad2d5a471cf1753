"""Chat templates: with a run's settings for them, and of families that are published without one.

Settings stand at the head of a template, as defaults of its own variables, and not in each call of
`apply_chat_template`: so they are saved with a levelled student, and any other program writes the prompts that it was
trained on.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from parityalign.core import open_thought

THINKING = "enable_thinking"
"""How most templates that can call their switch for thoughts."""
PROBE = "What is it?"

_PALIGEMMA = (
    "{%- for message in messages -%}"
    "{%- if message['role'] != 'assistant' -%}<image>answer en {% endif -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}"
    "{{- part['text'] if message['role'] == 'assistant' else part['text'] | replace('\\n', ' ') -}}"
    "{%- endfor -%}"
    "{%- if message['role'] == 'assistant' -%}{{- eos_token -}}{%- endif -%}"
    "{%- endfor -%}"
)
TASK_TEMPLATES: Mapping[str, str] = MappingProxyType({"PaliGemmaProcessor": _PALIGEMMA})
"""By the class of the processor, templates of families that follow no instructions but know the prefixes of some tasks.

PaliGemma: `answer en QUESTION` (big_vision, configs/proj/paligemma/transfers/vqav2.py). Its processor ends the prompt
with the only line break that the model knows, so those of the prompt are spaces.
"""


class Chats(Protocol):
    """What writes a model's chats: a `Prompter`."""

    def chat(self, prompt: str, answer: str | None = None) -> str:
        """The text of a chat."""


def with_defaults(
    template: str | dict[str, str], given: Mapping[str, bool | int | float | str]
) -> str | dict[str, str]:
    """The template, or each of several, with values of its variables at its head.

    Thoughts are switched off in a template that has the usual switch, unless it is given.
    """
    if isinstance(template, dict):
        return {name: with_default(each, given) for name, each in template.items()}
    return with_default(template, given)


def with_default(template: str, given: Mapping[str, bool | int | float | str]) -> str:
    """The template with values of its variables at its head."""
    off = {THINKING: False} if THINKING in template else {}
    # JSON's texts, numbers, true and false are Jinja's too.
    lines = (
        f"{{%- if {name} is not defined %}}{{%- set {name} = {json.dumps(value, ensure_ascii=False)} %}}{{%- endif %}}"
        for name, value in {**off, **given}.items()
    )
    return "".join(lines) + template


def opened_thought(chats: Chats) -> str:
    """The mark of the thought in which the model has to begin its reply; empty if it may speak at once."""
    return open_thought(chats.chat(PROBE).rpartition(PROBE)[2])
