"""Text metrics: how right a prediction is, given a question's references. Pure functions, no torch.

    textvqa_accuracy("Two.", ["2", "2", "two", "3", ...])  ->  Score(0.9, "2", "3 of 10 references match")

Each follows one public implementation to the letter, named beside it: public evaluators disagree with one
another, and a score with a rule of our own would compare with nothing. `mpa_substring` is the odd one out:
far laxer than the others, it never belongs in one column with them.
"""

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from rapidfuzz.distance import Levenshtein

from parityalign._vqa_text import normalise_evalai, normalise_official, on_one_line
from parityalign.errors import UserError
from parityalign.records import Score
from parityalign.seams import Metric

_ANLS_THRESHOLD = 0.5
_RELAXED_TOLERANCE = 0.05
_NOT_A_WORD = re.compile(r"\W+")


def vqa_accuracy_official(prediction: str, references: Sequence[str]) -> Score:
    """VQA accuracy by the official script of VQA v2 and OK-VQA (GT-Vision-Lab/VQA a013f00, `vqaEval.py`).

    Where all references agree, raw texts are compared, so "Tennis" is wrong for "tennis". That is intended
    there (issue 14: answers that were read off an image are not to be altered) and costs models that
    capitalise; `textvqa_accuracy` always normalises.

    Raises:
        UserError: there is no reference.
    """
    _require_references(prediction, references)
    compared = on_one_line(prediction)
    answers = [on_one_line(reference) for reference in references]
    if len(set(answers)) == 1:
        return _leave_one_out(compared, answers, note="; all references agree, so raw texts were compared")
    return _leave_one_out(normalise_official(compared), [normalise_official(answer) for answer in answers])


def textvqa_accuracy(prediction: str, references: Sequence[str]) -> Score:
    """VQA accuracy with the EvalAI processor, which papers report on TextVQA (facebookresearch/mmf b0ffc7fb).

    As in lmms-eval, any number of references will do; mmf insists on ten. A prediction of which nothing is
    left, such as "A", matches the references of which nothing is left.

    Raises:
        UserError: there is no reference.
    """
    _require_references(prediction, references)
    return _leave_one_out(normalise_evalai(prediction), [normalise_evalai(answer) for answer in references])


def anls(prediction: str, references: Sequence[str]) -> Score:
    """Normalised Levenshtein similarity to the nearest reference (facebookresearch/mmf b0ffc7fb).

    Lower case, no outer whitespace, unit costs by code point, over the longer text (`STVQAANLSEvaluator`).
    Below 0.5 it is 0. Exactly 0.5 is kept, as in the challenge's own script; the equation in the ST-VQA paper
    (ICCV 2019) drops it.

    Raises:
        UserError: there is no reference.
    """
    _require_references(prediction, references)
    compared = prediction.lower().strip()
    similarity, nearest = max(
        ((_similarity(compared, reference.lower().strip()), reference) for reference in references),
        key=lambda candidate: candidate[0],
    )
    why = f"similarity {similarity:.3f} to {nearest!r}"
    if similarity < _ANLS_THRESHOLD:
        return Score(0.0, compared, f"{why}, below {_ANLS_THRESHOLD}")
    return Score(similarity, compared, why)


def chartqa_relaxed_accuracy(prediction: str, references: Sequence[str]) -> Score:
    """Within 5 % of a numeric label, else equal but for case (lmms-eval 75571cfe, pix2struct 945f27e).

    The rule stands at the end of section 5.1 of the ChartQA paper, whose authors ship no scorer for it. Years
    are numbers (2010 is right for 2014), "62%" is 0.62 and wrong for the label "62", and nothing is stripped:
    "Yes." is wrong for "Yes". Of several references the best one counts.

    Raises:
        UserError: there is no reference.
    """
    _require_references(prediction, references)
    return max((_relaxed(prediction, target) for target in references), key=lambda score: score.value)


def mpa_substring(prediction: str | None, references: Sequence[str]) -> Score:
    """The MPA paper's metric: the squeezed prediction contains the squeezed ground truth (vl2g/MPA 4e69e39).

    The ground truth is the most frequent reference; of equally frequent ones, the first. Beware: "2015"
    contains "5", "nothing" contains "no", and everything contains a ground truth of which nothing is left.
    Long answers can only gain.

    Raises:
        UserError: there is no reference.
    """
    _require_references(prediction, references)
    [(truth, _)] = Counter(references).most_common(1)
    found = paper_contains(truth, prediction)
    verb = "contains" if found else "lacks"
    return Score(float(found), _squeeze(prediction), f"{verb} {_squeeze(truth)!r}")


def paper_contains(key: str | None, reply: str | None) -> bool:
    """Whether the `paper` rule finds the key in the reply: a substring, after both are squeezed.

    Squeezed means lower case with only letters, digits and underscores left. None counts as an empty text,
    and an empty key is found everywhere (`preprocess` in vl2g/MPA 4e69e39, `scripts/utils/utils.py`).
    """
    return _squeeze(key) in _squeeze(reply)


METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        "vqa_accuracy_official": vqa_accuracy_official,
        "textvqa_accuracy": textvqa_accuracy,
        "anls": anls,
        "chartqa_relaxed_accuracy": chartqa_relaxed_accuracy,
        "mpa_substring": mpa_substring,
    }
)
"""Every metric by the name that configurations, manifests and the command line use."""


LEAVE_ONE_OUT: Final = frozenset({"vqa_accuracy_official", "textvqa_accuracy"})
"""Metrics that compare each annotator with the others, so that a lone reference scores 0 whatever the prediction."""


def metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        UserError: there is none; the message names the near ones and all.
    """
    if name in METRICS:
        return METRICS[name]
    near = difflib.get_close_matches(name.lower(), METRICS)
    hint = f", did you mean {' or '.join(near)}?" if near else "."
    raise UserError(f"there is no metric {name!r}{hint} All of them: {', '.join(METRICS)}.")


def _require_references(prediction: str | None, references: Sequence[str]) -> None:
    # A text is a sequence of texts to Python and to mypy; its letters would be taken for references.
    if isinstance(references, str) or not references:
        raise UserError(f"{references!r} came as references of {prediction!r}; give a list of one text or more")


def _leave_one_out(compared: str, answers: Sequence[str], *, note: str = "") -> Score:
    """Mean over the annotators of min(1, equal answers among the others / 3), in closed form.

    A lone reference has no others and scores 0 whatever the prediction.
    """
    n = len(answers)
    matches = answers.count(compared)
    # `matches` annotators see one match less than the rest. In thirds, so that only the last step rounds.
    thirds = matches * min(3, matches - 1) + (n - matches) * min(3, matches)
    if n == 1:
        note += "; a lone reference always scores 0, as each annotator is compared with the others"
    return Score(thirds / (3 * n), compared, f"{matches} of {n} references match{note}")


def _similarity(one: str, other: str) -> float:
    longer = max(len(one), len(other))
    if longer == 0:
        # mmf divides by zero here; the challenge's own script gives 1.
        return 1.0
    return 1 - Levenshtein.distance(one, other) / longer


def _relaxed(prediction: str, target: str) -> Score:
    predicted, labelled = _number(prediction), _number(target)
    # A label of zero has no 5 % around it and is compared as text, so "0.0" is wrong for "0".
    if predicted is None or not labelled:
        same = prediction.lower() == target.lower()
        return Score(float(same), prediction.lower(), f"{'equals' if same else 'differs from'} {target!r}")
    # Float arithmetic in the original's order: by rounding, 10.5 is right for 10 and 1.05 wrong for 1.
    change = abs(predicted - labelled) / abs(labelled)
    return Score(float(change <= _RELAXED_TOLERANCE), str(predicted), f"off by {change:.2%} from {labelled}")


def _number(text: str) -> float | None:
    """The number that `float` reads ("1e3", " 5 ", "1_000", "nan"), or None; percent as a fraction."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


@lru_cache(maxsize=1 << 16)
def _squeeze(text: str | None) -> str:
    return "" if text is None else _NOT_A_WORD.sub("", text.lower())
