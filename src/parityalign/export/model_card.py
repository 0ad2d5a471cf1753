"""The levelled student's model card: its data, recipe, scores, and what is known of its licence."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from parityalign.core import CARD_FIGURE, printable, yaml_mapping
from parityalign.export.benchmarks import BenchmarkScore
from parityalign.export.origins import UNCHECKED
from parityalign.report import ABSENT, OTHER_TRAININGS, Changed, Drawn, in_words

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

_LONGEST = 160
"""Characters of a question or an answer on the card; a student can ramble."""


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
    teacher_licence: Mapping[str, str] = field(default_factory=dict)
    """As `licence`, of the teacher."""
    data_sets: Sequence[str] = ()
    """Names on the hub of the data sets that images came from."""
    results: Sequence[BenchmarkScore] = ()
    """The scores, for the hub."""
    changed: Drawn | None = None
    """Test questions won and lost; None if nothing was scored."""


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
{changed}
## Data

{sources}

{counts}

## Recipe

{recipe}

What came of it:

{result}

## Licence

- The student inherits the licence of its base model: {licence}.
- What it learnt is the output of {teacher}, whose licence is: {teacher_licence}. The terms of that model say what its
  output may be used for; some forbid to train other models with it, or ask that its name is kept.
- The images keep the licence of their source{data_sets}. The student holds none of them.

Look at these, and at `license` above, before you publish this.
"""
_NO_SCORES = "It has not been scored: the run has no labelled questions, or evaluate has not run since it was trained."


def card(made: Made) -> str:
    """The text of README.md: a YAML header for the hub, then the text for readers."""
    from huggingface_hub import ModelCard  # noqa: PLC0415

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
        changed=_changed(made.changed),
        sources="\n".join(f"- {escaped(task)}: images from {escaped(place)}" for task, place in made.sources.items()),
        counts=_facts({"what": "pairs", **made.counts}),
        recipe=_facts({"setting": "value", **made.recipe}),
        result=_facts({"fact": "value", **made.result}),
        licence=_licence_in_words(made.licence),
        teacher_licence=_licence_in_words(made.teacher_licence),
        data_sets=f": {', '.join(map(escaped, made.data_sets))}" if made.data_sets else "",
    )
    return str(ModelCard(f"---\n{_header(made).to_yaml()}\n---\n\n{body}"))


def _licence_in_words(licence: Mapping[str, str]) -> str:
    name = licence.get("license_name") or licence.get("license")
    return escaped(name) if name else "not known here, see the page of that model"


def _result(made: Made) -> str:
    figure = f"![Scores before and after levelling]({CARD_FIGURE})"
    scored = [figure, _table(made.scores), made.headline] if made.scores else [_NO_SCORES]
    known = f"In brackets: 95 % intervals. {OTHER_TRAININGS}" if made.scores or made.held_out else ""
    return "\n\n".join(filter(None, [*scored, escaped(made.held_out), known]))


def _changed(drawn: Drawn | None) -> str:
    """Questions won and lost, without their pictures, whose licence does not have to be that of the student."""
    if drawn is None or not (drawn.won or drawn.lost):
        return ""
    parts = ["\n## Won and lost"]
    for found, count, what in ((drawn.won, drawn.won_count, "better"), (drawn.lost, drawn.lost_count, "worse")):
        if found:
            parts.append(
                f"{len(found):,} of the {count:,} test questions that it answers {what} than before, drawn at random:"
            )
            rows = [[each.task, *map(_short, (each.question, each.right, *_answers(each)))] for each in found]
            parts.append(_table([["task", "question", "right", "before", "after", "teacher"], *rows]))
    return "\n\n".join(parts) + "\n"


def _answers(changed: Changed) -> list[str | None]:
    return [changed.said.get(who) for who in ("before", "after", "teacher")]


def _short(text: str | None) -> str:
    if text is None:
        return ABSENT
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def licence_of(readme: str) -> dict[str, str]:
    """The licence in the header of a model card; empty if there is none."""
    found = re.match(r"---\s*\n(.*?)\n---", readme, re.DOTALL)
    said = yaml_mapping(found[1]) if found else {}
    names = ("license", "license_name", "license_link")
    return {key: said[key] for key in names if isinstance(said.get(key), str) and said[key]}


def escaped(text: str) -> str:
    """A text escaped for Markdown, on one line; direction marks and control characters are written out."""
    return re.sub(r"([\\`*_\[\]#|~!])", r"\\\1", html.escape(printable(" ".join(text.split())), quote=False))


def _header(made: Made) -> "ModelCardData":
    from huggingface_hub import ModelCardData  # noqa: PLC0415

    return ModelCardData(
        base_model=made.base if made.base_on_hub else None,
        base_model_relation="finetune" if made.base_on_hub else None,
        license=made.licence.get("license"),
        license_name=made.licence.get("license_name"),
        license_link=made.licence.get("license_link"),
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        datasets=[*made.data_sets] or None,
        tags=["parityalign", "visual-question-answering", "distillation"],
        model_name=f"{made.base}, levelled towards {made.teacher}" if made.results else None,
        eval_results=list(map(_evaluated, made.results)) or None,
    )


def _evaluated(result: BenchmarkScore) -> "EvalResult":
    from huggingface_hub import EvalResult  # noqa: PLC0415

    return EvalResult(
        task_type="visual-question-answering",
        task_name="Visual question answering",
        dataset_type=result.data_set or result.benchmark,
        dataset_name=f"{result.benchmark}, {result.questions:,} questions",
        dataset_config=result.config,
        dataset_split=result.split,
        metric_type=result.metric,
        metric_name=in_words(result.metric),
        metric_value=result.score,
    )


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
