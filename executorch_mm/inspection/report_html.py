"""What a model file consists of, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from executorch_mm.inspection.model_report import MethodReport, ModelReport, TensorReport

_MIB = 1 << 20


def report_html(report: ModelReport) -> str:
    """Tables; every text of the file is escaped."""
    head = f"{report.path}: {report.file_bytes / _MIB:.1f} MiB, {report.kind} model"
    if report.capacity is not None:
        head += f", context of {report.capacity} positions"
    parts = [f"<p><b>{escape(head)}</b></p>"]
    methods = [_method_row(method) for method in report.methods]
    parts.append(
        _table(("method", "inputs", "outputs", "planned memory", "cache", "calls delegated"), methods)
    )
    operators = sorted({(o.name, o.source) for method in report.methods for o in method.operators})
    missing = [[name] for name, source in operators if source == "missing"]
    if missing:
        parts.append(_table(("missing operators",), missing))
    if report.problems:
        items = "".join(f"<li>{escape(problem)}</li>" for problem in report.problems)
        parts.append(f"<p>problems</p><ul>{items}</ul>")
    return "".join(parts)


def _method_row(method: MethodReport) -> Sequence[str]:
    return (
        method.name,
        ", ".join(map(_tensor, method.inputs)),
        ", ".join(map(_tensor, method.outputs)),
        f"{sum(method.arena_bytes) / _MIB:.1f} MiB",
        f"{method.cache} ({method.cache_bytes / _MIB:.1f} MiB)" if method.cache_bytes else method.cache,
        f"{method.delegated_share:.0%}",
    )


def _tensor(tensor: TensorReport) -> str:
    if tensor.shape is None:
        return tensor.dtype
    bound = "up to " if tensor.is_dynamic else ""
    return f"{tensor.dtype} {bound}{list(tensor.shape)}"


def _table(names: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
