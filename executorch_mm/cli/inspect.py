"""`executorch-mm inspect`: what a .pte file consists of, and what may go wrong with it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from executorch_mm.cli.grammar import Commands, add_command
from executorch_mm.cli.model_arguments import add_model_argument, find_files
from executorch_mm.cli.output import add_json, add_output, opened

if TYPE_CHECKING:
    from executorch_mm.inspection.model_report import MethodReport, ModelReport, TensorReport


def add_parser(commands: Commands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "inspect",
        "show what a model file consists of",
        "Show a .pte file's methods, memory, operators and likely problems, without loading it. It need not "
        "be able to run here.",
    )
    add_output(parser)
    add_json(parser, "print everything as JSON")
    add_model_argument(parser, has_tokenizer=False)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand.

    Raises:
        ModelLoadError: There is no such model, or the file is no .pte file.
        OSError: The report cannot be written.
    """
    from executorch_mm import inspect_model

    report = inspect_model(find_files(arguments).model)
    text = json.dumps(report.to_dict(), indent=2) if arguments.json else "\n".join(_lines(report))
    with opened(arguments.output) as file:
        print(text, file=file)
    return 0


def _lines(report: ModelReport) -> Iterator[str]:
    yield f"{report.path}: {shown_size(report.file_bytes)}, {report.kind} model"
    if report.kind != "other":
        rewind = "can" if report.can_rewind else "cannot"
        yield f"context: {report.capacity or 'unknown'} positions, {report.max_chunk} a call, {rewind} rewind"
    if report.copied_step_bytes is not None:
        components = ", ".join(method.name for method in report.methods)
        yield f"components: {components}; each step copies {shown_size(report.copied_step_bytes)} of inputs"
    for method in report.methods:
        yield from _method_lines(method)
    if report.metadata:
        yield "metadata"
        yield from (f"  {name} = {value}" for name, value in report.metadata.items())
    yield "problems" if report.problems else "problems: none found"
    yield from (f"  {problem}" for problem in report.problems)


def _method_lines(method: MethodReport) -> Iterator[str]:
    yield method.name
    yield from (f"  in   {_describe(tensor)}" for tensor in method.inputs)
    yield from (f"  out  {_describe(tensor)}" for tensor in method.outputs)
    memory = ", ".join(map(shown_size, method.arena_bytes)) or "none"
    shared = f" ({shown_size(method.shared_bytes)} shared by all methods)" if method.shared_bytes else ""
    yield f"  planned memory {memory}{shared}; cache {method.cache} ({shown_size(method.cache_bytes)})"
    yield f"  {method.num_instructions} instructions, {method.delegated_share:.0%} of the calls delegated"
    for delegate in method.delegates:
        missing = "" if delegate.is_linked else ", MISSING"
        yield f"  {delegate.calls:5} {delegate.backend} ({shown_size(delegate.bytes)}{missing})"
    for operator in method.operators:
        source = "MISSING" if operator.source == "missing" else operator.source
        yield f"  {operator.calls:5} {operator.name} ({source})"


def _describe(tensor: TensorReport) -> str:
    if tensor.shape is None:
        return tensor.dtype
    bound = "up to " if tensor.is_dynamic else ""
    return f"{tensor.dtype} {bound}{list(tensor.shape)}{', planned' if tensor.is_planned else ''}"


def shown_size(count: int) -> str:
    """A number of bytes with one decimal."""
    if count < 1 << 10:
        return f"{count} B"
    return f"{count / (1 << 10):.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"
