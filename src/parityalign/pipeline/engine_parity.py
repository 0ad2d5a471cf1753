"""Compares a model behind a server that the run starts with the same model in this process, on a few questions.

The two prepare pictures and compute in ways of their own, so that some answers differ in a word. Many that differ, or
differ from the first word on, tell of another picture size, chat template or precision.
"""

from collections.abc import Callable, Sequence

from parityalign.config import LoadingSettings, split_model
from parityalign.core import Closes, Decoding, Model, Request, UserError
from parityalign.models import give_back_memory, load_model

_DECODING = Decoding(max_new_tokens=32)
_SHOWN = 200


def compare_engines(
    spec: str,
    loading: LoadingSettings,
    served: Model,
    requests: Sequence[Request],
    tell: Callable[[str], None],
) -> str:
    """Asks both greedily, first the one in this process, whose memory is given back before the server starts.

    Args:
        spec: The model.
        loading: How it is loaded.
        served: The model behind the server.
        requests: Some of those that the run is about to ask.
        tell: Told of how many answers are equal, and of each that differs.

    Returns:
        How many are equal, in words, for a manifest; empty where the model cannot be had in this process.
    """
    _, location = split_model(spec)
    try:
        here = _answers_here(f"hf:{location}", loading, requests)
    except (UserError, MemoryError) as problem:
        tell(f"{spec} is not compared with the same model in this process: {str(problem).splitlines()[0]}")
        return ""
    give_back_memory()
    there = served.generate(requests, _DECODING)
    differing = [both for both in zip(requests, here, there, strict=True) if both[1] != both[2]]
    equal = f"{len(here) - len(differing)} of {len(here)}"
    tell(f"{spec}: {equal} greedy answers equal those of the model in this process")
    for request, local, remote in differing:
        tell(f"  {request.image}\n    here:   {local[:_SHOWN]!r}\n    server: {remote[:_SHOWN]!r}")
    return equal


def _answers_here(spec: str, loading: LoadingSettings, requests: Sequence[Request]) -> list[str]:
    model = load_model(spec, loading)
    try:
        return model.generate(requests, _DECODING)
    finally:
        if isinstance(model, Closes):
            model.close()
