"""The levelled student's model card: its data, recipe, scores, and what is known of its licence."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from parityalign.export.origins import UNCHECKED


@dataclass(frozen=True)
class Made:
    """How a student was made, for readers without the run. Local things by name, not by path."""

    base: str
    base_on_hub: bool
    """Whether `base` is a name on the hub, so that its page can be linked."""
    commit: str | None
    """The base's commit on the hub."""
    licence: Mapping[str, str]
    """From the base's own card: `license`, `license_name`, `license_link`; empty if unknown."""
    teacher: str
    sources: Mapping[str, str]
    """By task: where its images came from."""
    prompt: str
    """One task's answer prompt, with `{question}`."""
    counts: Mapping[str, int]
    """Counts of pairs: total, gaps, replay, training, held out."""
    recipe: Mapping[str, object]
    """The settings of level, and the seed."""
    result: Mapping[str, object]
    """Steps, held-out losses, and other results of training."""
    scores: Sequence[Sequence[str]]
    """A table, headings first; empty if nothing was scored."""
    headline: str
    held_out: str
    """The result on held-out images in a sentence; empty if there is none."""
    version: str
    """The version of parityalign."""
    checked: str = UNCHECKED
    """What a person did to the pairs, in sentences."""


_BODY = """\
# {base}, levelled towards {teacher}

A student trained on {training:,} of {pairs:,} questions about unlabelled images: those that {teacher} answered right
and it did not, and {replay:,} that it already had right. Made with parityalign {version}.
{checked}

| | |
|---|---|
| base model | {base}{commit} |
| teacher, who wrote the questions and answers | {teacher} |
| method | {method} |

## Use

```python
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

where = "."  # this folder, or its name on the hub
processor = AutoProcessor.from_pretrained(where)
model = AutoModelForImageTextToText.from_pretrained(where, dtype="auto")
prompt = {prompt}.format(question="What is written?")
content = [{{"type": "image", "image": Image.open("picture.png")}}, {{"type": "text", "text": prompt}}]
chat = [{{"role": "user", "content": content}}]
asked = {{"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}}
inputs = processor.apply_chat_template(chat, **asked).to(model.device, model.dtype)
reply = model.generate(**inputs, max_new_tokens=32)[:, inputs["input_ids"].shape[1] :]
print(processor.batch_decode(reply, skip_special_tokens=True)[0])
```

## Scores

{scores}

## Data

{sources}

{counts}

## Recipe

{recipe}

What came of it:

{result}

## Licence

The student inherits the licence of its base model{licence}. What it learnt is the output of {teacher}: the terms of
that model say what its output may be used for. The images keep the licence of their source. Look at `license` above
before you publish this.
"""
_NO_SCORES = "It has not been scored: the run has no labelled questions, or evaluate has not run since it was trained."


def card(made: Made) -> str:
    """The text of README.md: a YAML header for the hub, then the text for readers."""
    header = yaml.safe_dump(_header(made), sort_keys=False, allow_unicode=True, width=1000)
    licence = made.licence.get("license_name") or made.licence.get("license")
    body = _BODY.format(
        base=escaped(made.base),
        commit=f" at {escaped(made.commit)}" if made.commit else "",
        teacher=escaped(made.teacher),
        pairs=made.counts.get("pairs", 0),
        training=made.counts.get("training", 0),
        replay=made.counts.get("replay", 0),
        version=made.version,
        checked=made.checked,
        method=escaped(str(made.recipe.get("level.method", ""))),
        prompt=repr(made.prompt),
        scores=_result(made),
        sources="\n".join(f"- {escaped(task)}: images from {escaped(place)}" for task, place in made.sources.items()),
        counts=_facts({"what": "pairs", **made.counts}),
        recipe=_facts({"setting": "value", **made.recipe}),
        result=_facts({"fact": "value", **made.result}),
        licence=f", {escaped(licence)}" if licence else ", which is not known here: see the page of that model",
    )
    return f"---\n{header}---\n\n{body}"


def _result(made: Made) -> str:
    scored = "\n\n".join([_table(made.scores), made.headline]) if made.scores else _NO_SCORES
    return "\n\n".join(filter(None, [scored, escaped(made.held_out)]))


def licence_of(readme: str) -> dict[str, str]:
    """The licence in the header of a model card; empty if there is none."""
    found = re.match(r"---\s*\n(.*?)\n---", readme, re.DOTALL)
    try:
        header = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        header = None
    said = header if isinstance(header, dict) else {}
    return {key: str(said[key]) for key in ("license", "license_name", "license_link") if said.get(key)}


def escaped(text: str) -> str:
    """A text escaped for Markdown, on one line."""
    return re.sub(r"([\\`*_\[\]#|~!])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _header(made: Made) -> dict[str, Any]:
    base = {"base_model": made.base, "base_model_relation": "finetune"} if made.base_on_hub else {}
    return {
        **base,
        **made.licence,
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["parityalign", "visual-question-answering", "distillation"],
    }


def _facts(rows: Mapping[str, object]) -> str:
    """A table of two columns; the first row is the heading."""
    return _table([[name, _shown(value)] for name, value in rows.items()])


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(map(escaped, cells))} |" for cells in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
