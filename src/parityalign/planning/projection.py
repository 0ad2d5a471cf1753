"""A plan: one row per model and stage, what does not fit, and the assumptions."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from parityalign.planning.published import Device

PROJECTION_HEADINGS = (
    "stage",
    "model",
    "requests",
    "prompt tokens",
    "reply tokens",
    "steps",
    "at once",
    "hours",
    "CPU hours",
    "memory GB",
    "money",
)
_GIGA = 1e9


@dataclass(frozen=True)
class ProjectionRow:
    """What one model does in one stage."""

    stage: str
    model: str
    requests: int
    """Requests; in training, examples processed."""
    prompt_tokens: int
    reply_tokens: int
    steps: int
    """Optimiser steps."""
    at_once: int | None
    """Batch or micro-batch size; None: unknown."""
    seconds: float | None
    """None: unknown, as for a served model."""
    memory: float | None
    """Peak bytes on the device."""
    money: float | None
    """None: the model is not paid per token."""
    preparation: float | None = None
    """CPU seconds for reading and preparing pictures, on one core; None: unknown."""


@dataclass(frozen=True)
class Projection:
    """A plan."""

    rows: list[ProjectionRow]
    device: Device
    models: list[str]
    """What is known of each model, as text."""
    problems: list[str]
    """What does not fit into memory or a budget, and which settings would."""
    assumed: list[str]
    disk: float | None = None
    """The most bytes on the disk; None: unknown."""

    @property
    def seconds(self) -> float:
        """The total of all rows whose time is known."""
        return sum(row.seconds or 0.0 for row in self.rows)

    @property
    def memory(self) -> float | None:
        """The maximum over all rows, since one model is in memory at a time."""
        return max((row.memory for row in self.rows if row.memory is not None), default=None)

    @property
    def money(self) -> float | None:
        """The total of all paid rows; None if there are none."""
        paid = [row.money for row in self.rows if row.money is not None]
        return sum(paid) if paid else None

    @property
    def total(self) -> ProjectionRow:
        """All rows together."""
        return ProjectionRow(
            "total",
            "",
            requests=sum(row.requests for row in self.rows),
            prompt_tokens=sum(row.prompt_tokens for row in self.rows),
            reply_tokens=sum(row.reply_tokens for row in self.rows),
            steps=sum(row.steps for row in self.rows),
            at_once=None,
            seconds=self.seconds,
            memory=self.memory,
            money=self.money,
            preparation=sum(row.preparation or 0.0 for row in self.rows),
        )

    def table(self) -> list[list[str]]:
        """The rows and their total as text, one cell for each of `PROJECTION_HEADINGS`."""
        return [_cells(row) for row in (*self.rows, self.total)]

    def record(self) -> dict[str, Any]:
        """Everything, for programs: seconds, bytes and the prices' currency."""
        return {
            **asdict(self),
            "device": self.device._asdict(),
            "total": asdict(self.total),
        }

    def lines(self) -> Iterator[str]:
        """The text below the table: totals, models, problems, assumptions."""
        yield from summary(self)
        if self.disk:
            yield f"disk: up to {self.disk / _GIGA:,.1f} GB in the run folder: pictures, records, checkpoints, student"
        yield ""
        yield from self.models
        yield from _listed("Does not fit:", self.problems)
        yield from _listed("Assumed:", self.assumed)


def summary(plan: Projection) -> list[str]:
    """The plan in three lines, for recipes."""
    asking, training = [row for row in plan.rows if not row.steps], [row for row in plan.rows if row.steps]

    def time(rows: Sequence[ProjectionRow]) -> str:
        seconds = sum(row.seconds or 0.0 for row in rows)
        return f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{seconds / 60:,.1f} minutes"

    def most(rows: Sequence[ProjectionRow]) -> str:
        return f"{max((row.memory or 0.0 for row in rows), default=0.0) / _GIGA:,.1f} GB"

    requests, steps = sum(row.requests for row in asking), sum(row.steps for row in training)
    tokens = sum(row.prompt_tokens for row in asking) / 1e6
    return [
        f"asking: {requests:,} requests, {tokens:,.1f} million prompt tokens, {time(asking)}, at most {most(asking)}",
        f"training: {steps:,} steps, {time(training)}, {most(training)}",
        f"total: {time(plan.rows)} on {plan.device.name}",
    ]


def _cells(row: ProjectionRow) -> list[str]:
    return [
        row.stage,
        row.model,
        f"{row.requests:,}",
        f"{row.prompt_tokens:,}",
        f"{row.reply_tokens:,}",
        f"{row.steps:,}" if row.steps else "",
        f"{row.at_once:,}" if row.at_once else "",
        "" if row.seconds is None else _hours(row.seconds),
        "" if row.preparation is None else _hours(row.preparation),
        "" if row.memory is None else f"{row.memory / _GIGA:,.1f}",
        "" if row.money is None else f"{row.money:,.2f}",
    ]


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.2f}" if seconds >= 36 else f"{seconds / 3600:.4f}"


def _listed(heading: str, points: Sequence[str]) -> Iterator[str]:
    if points:
        yield ""
        yield heading
        yield from (f"- {point}" for point in points)
