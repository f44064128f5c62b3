"""What was measured, as a table and for JSON."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from executorch_mm import __version__
from executorch_mm.stats import counted, duration

if TYPE_CHECKING:
    from executorch_mm.cli.bench.contender import Contender, Task


class Measure(NamedTuple):
    """A kind of number.

    Attributes:
        name: In JSON.
        title: In tables and plots; {task.x} stands for a field of the task.
        is_more_better: Or less.
    """

    name: str
    title: str
    is_more_better: bool

    def shown(self, value: float) -> str:
        """A value with its unit."""
        if self.name.endswith("_seconds"):
            return duration(value)
        unit = "MiB" if self.name.endswith("_mib") else "tokens/s"
        return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"


_MEASURES = (
    Measure("load_seconds", "load", is_more_better=False),
    Measure("first_token_seconds", "first token after {task.prompt_tokens}", is_more_better=False),
    Measure("prefill_tokens_per_second", "prefill", is_more_better=True),
    Measure("decode_tokens_per_second", "decode", is_more_better=True),
    Measure(
        "concurrent_tokens_per_second", "{task.conversations} conversations, all tokens", is_more_better=True
    ),
    Measure("peak_memory_mib", "peak memory", is_more_better=False),
)


@dataclass(frozen=True)
class Row:
    """A measure of all that were measured.

    Attributes:
        measure: Which.
        title: Of it.
        values: Round by round, for each of them.
        ratios: Of each to the first, the median of the rounds' ratios.
    """

    measure: Measure
    title: str
    values: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...]

    @property
    def medians(self) -> list[float]:
        """Of each of them."""
        return [median(values) for values in self.values]


@dataclass(frozen=True)
class Report:
    """A comparison, or what one model does.

    Attributes:
        names: Of what was measured.
        task: What it had to do.
        rows: What came of it.
        machine: That it ran on.
    """

    names: tuple[str, ...]
    task: Task
    rows: tuple[Row, ...]
    machine: str

    @classmethod
    def of(cls, contenders: Sequence[Contender], task: Task) -> Report:
        """That of models which have taken turns."""
        rows = []
        values: list[tuple[float, ...]]
        for measure in _MEASURES:
            if measure.name == "load_seconds":
                values = [(one.load_seconds,) for one in contenders]
            elif all(measure.name in one.rounds[0] for one in contenders):
                values = [tuple(taken[measure.name] for taken in one.rounds) for one in contenders]
            else:
                continue
            ratios = tuple(_ratio(own, values[0]) for own in values)
            rows.append(Row(measure, measure.title.format(task=task), tuple(values), ratios))
        return cls(_names(contenders), task, tuple(rows), _machine())

    def table(self) -> str:
        """Lines of text; beside a second model its ratio to the first."""
        first, *others = self.names
        lines = [["", first, *(cell for name in others for cell in (name, "ratio"))]]
        for row in self.rows:
            cells = [row.title]
            for i, value in enumerate(row.medians):
                cells += [row.measure.shown(value), *([f"{row.ratios[i]:.2f}"] if i else [])]
            lines.append(cells)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(f"{cell:{'<' if i == 0 else '>'}{width}}" for i, (cell, width) in enumerate(pairs))
            for pairs in (list(zip(line, widths, strict=True)) for line in lines)
        ]
        return "\n".join(line.rstrip() for line in [*text, self.note()])

    def heading(self) -> str:
        """What a plot of it shows, for those who cannot see it."""
        return f"executorch-mm bench: {', '.join(self.names)}"

    def note(self) -> str:
        """How it was measured, in one line."""
        rounds = max(len(values) for row in self.rows for values in row.values)
        return (
            f"{self.task.prompt_tokens} + {self.task.new_tokens} tokens, medians of {rounds} rounds; "
            f"executorch_mm {__version__}, {self.machine}"
        )

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        return {
            "models": list(self.names),
            "task": self.task._asdict(),
            "machine": self.machine,
            "date": time.strftime("%Y-%m-%d"),
            "version": __version__,
            "measures": [
                {
                    "name": row.measure.name,
                    "title": row.title,
                    "is_more_better": row.measure.is_more_better,
                    "medians": row.medians,
                    "ratios": list(row.ratios),
                    "rounds": [list(values) for values in row.values],
                }
                for row in self.rows
            ],
        }


def _names(contenders: Sequence[Contender]) -> tuple[str, ...]:
    return tuple(f"{one.name}, {counted(one.threads, 'thread')}" for one in contenders)


def _ratio(own: Sequence[float], first: Sequence[float]) -> float:
    return median(a / b if b else float("inf") for a, b in zip(own, first, strict=True))


def _machine() -> str:
    import os

    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
