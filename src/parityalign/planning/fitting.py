"""What in a plan exceeds memory or budget, and which settings would fit: dtype, quantisation, adapters, pixels."""

from collections.abc import Iterator, Mapping, Sequence

from parityalign.config import LevelSettings, LoadingSettings, Role, RunConfig, ServerSettings
from parityalign.planning import costs
from parityalign.planning.published import Device
from parityalign.planning.sizes import ModelFacts, Size
from parityalign.planning.works import Workload

_GIGA = 1e9


def problems(
    config: RunConfig, work: Sequence[Workload], known: Mapping[Role, ModelFacts], device: Device
) -> list[str]:
    """What exceeds the device's memory or a budget, in words, each with what would fit."""
    asked: dict[Role, tuple[float, str]] = {}
    found: list[str] = []
    for each in work:
        size = known[each.role].size
        if size is None or not each.requests:
            continue
        if each.steps:
            found.extend(_training(each, size, config.level, device))
        elif problem := _asking(each, size, getattr(config.loading, each.role), device):
            asked[each.role] = max(asked.get(each.role, (0.0, "")), problem)
    if known["student"].served:
        found.append(f"the student {config.student} is behind a server: it can be judged but not trained")
    return [*(text for _, text in asked.values()), *found, *_budgets(config.server, work, known)]


def _asking(work: Workload, size: Size, loading: LoadingSettings, device: Device) -> tuple[float, str] | None:
    """How much the model takes while it is asked, if that is too much, and what to do about it."""
    needed = costs.asking_memory(work, size, loading, device)
    if needed <= device.memory:
        return None
    place = f"loading.{work.role}"
    changes = ("dtype", "bfloat16"), ("quantise", "8bit"), ("quantise", "4bit")
    others = {
        f"{place}.{key}: {value}": costs.asking_memory(work, size, loading.model_copy(update={key: value}), device)
        for key, value in changes
        if getattr(loading, key) != value
    }
    fewer = f"{place}.max_pixels for smaller pictures"
    return needed, _in_words(f"asking the {work.role} ({work.stage})", needed, others, fewer, device)


def _training(work: Workload, size: Size, level: LevelSettings, device: Device) -> Iterator[str]:
    """Training that takes too much, and what to do about it."""
    mode = costs.training_mode(level, device, work, size)

    def needed(changed: costs.TrainingMode) -> float:
        return costs.levelling_memory(work, size, changed, level, device)

    if needed(mode) <= device.memory:
        return
    whole, sparing = mode._replace(divided=1), mode._replace(divided=1, checkpointing=True)
    modes = {
        "level.gradient_checkpointing: true": mode._replace(checkpointing=True),
        "level.optimiser: adafactor": whole._replace(optimiser="adafactor"),
        "level.method: lora": whole._replace(method="lora"),
        "level.method: lora and level.gradient_checkpointing: true": sparing._replace(method="lora"),
        "level.method: qlora and level.gradient_checkpointing: true": sparing._replace(method="qlora"),
    }
    others = {words: needed(other) for words, other in modes.items() if other != mode}
    if level.sharded:  # which goes with all weights and AdamW alone
        kept = "level.gradient_checkpointing: true"
        others = {words if words == kept else f"{words} without level.sharded": size for words, size in others.items()}
    fewer, sharded = "loading.student.max_pixels", "level.method: full and level.sharded: true"
    if level.may_be_sharded and not level.sharded and device.is_gpu:
        if level.processes and level.processes > 1:
            others[sharded] = needed(mode._replace(divided=level.processes))
        else:
            fewer += f", or several such devices with {sharded}"
    yield _in_words("training the student", needed(mode), others, fewer, device)


def _in_words(what: str, needed: float, others: Mapping[str, float], fewer: str, device: Device) -> str:
    fitting = [f"{words} ({bytes / _GIGA:,.1f} GB)" for words, bytes in others.items() if bytes <= device.memory]
    small = min(others.values(), default=needed)
    advice = (
        f"Would fit: {'; '.join(fitting)}" if fitting else f"The smallest of the settings takes {small / _GIGA:,.1f} GB"
    )
    return (
        f"{what} takes {needed / _GIGA:,.1f} GB, {device.name} has {device.memory / _GIGA:,.1f} GB. {advice}; "
        f"or {fewer}, or a larger device."
    )


def _budgets(server: ServerSettings, work: Sequence[Workload], known: Mapping[Role, ModelFacts]) -> Iterator[str]:
    """Budgets of the configuration that the plan exceeds."""
    served = [each for each in work if known[each.role].served and not each.steps]
    needs = {
        "budget_requests": sum(each.requests for each in served),
        "budget_tokens": sum(each.tokens for each in served),
        "budget_money": sum(costs.money(each, server) for each in served),
    }
    for name, needed in needs.items():
        budget = getattr(server, name)
        if budget is not None and needed > budget:
            yield f"server.{name} is {budget:,}, but the plan needs {_amount(needed)}: the run would stop there"


def _amount(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:,.2f}"
