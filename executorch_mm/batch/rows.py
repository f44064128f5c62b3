"""Rows of a batch: lines of JSON, or of a table."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

from executorch_mm._files.extras import import_extra
from executorch_mm.errors import InputError, shown

MOST_LINE_BYTES = 256 * 2**20
_TABLES = {".parquet": "parquet", ".csv": "csv"}
_PART_BYTES = 1 << 20
_PART_ROWS = 64  # of a table, which may hold images


class Row(NamedTuple):
    """A row.

    Attributes:
        number: From 1 on, as lines of the file are counted.
        id: Its name among the results.
        text: A JSON object in one line; what there was instead where it is damaged.
        error: Why it cannot be answered; None for all others.
    """

    number: int
    id: str
    text: bytes
    error: InputError | None = None


def is_table(path: Path) -> bool:
    """Whether it is a file of columns and not of lines."""
    return path.suffix.lower() in _TABLES


def count_rows(path: Path) -> int:
    """How many rows a file holds, without reading what they say.

    Raises:
        OSError: It cannot be read.
        InputError, MissingDependencyError: It is a damaged table, or pyarrow is missing.
    """
    if is_table(path):
        with _opened_table(path) as batches:
            return sum(batch.num_rows for batch in batches)
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while part := file.read(_PART_BYTES):
            count += part.count(b"\n")
            last = part[-1:]
    return count + (last != b"\n")


def read_rows(path: Path | None) -> Iterator[Row]:
    """The rows of a file, one after the other; empty lines are none.

    Args:
        path: .csv and .parquet are tables, all else is lines of JSON; None for standard input.

    Raises:
        OSError, InputError, MissingDependencyError: As `count_rows`.
    """
    if path is not None and is_table(path):
        yield from _table_rows(path)
        return
    with os.fdopen(os.dup(sys.stdin.fileno()), "rb") if path is None else path.open("rb") as file:
        for number, line in enumerate(_lines(file), 1):
            if line is None:
                yield _damaged(number, b"", f"expected at most {MOST_LINE_BYTES} bytes in a line")
            elif line := line.strip():
                yield _row(number, line)


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """None for a line that is too long."""
    while line := file.readline(MOST_LINE_BYTES + 1):
        if len(line) <= MOST_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(_PART_BYTES)
        yield None


def _row(number: int, line: bytes) -> Row:
    try:
        value = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        return _damaged(number, line, f"expected JSON ({error})")
    if not isinstance(value, dict):
        return _damaged(number, line, f"expected a JSON object, got {shown(value)}")
    given = value.get("custom_id", value.get("id"))
    if given is None:
        return Row(number, f"line {number}", line)
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        return _damaged(number, line, f"id: expected a text or an integer, got {shown(given)}")
    return Row(number, str(given), line)


def _damaged(number: int, line: bytes, why: str) -> Row:
    return Row(number, f"line {number}", line, InputError(f"line {number}: {why}"))


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _table_rows(path: Path) -> Iterator[Row]:
    number = 0
    with _opened_table(path) as batches:
        for batch in batches:
            for start in range(0, batch.num_rows, _PART_ROWS):
                for values in batch.slice(start, _PART_ROWS).to_pylist():
                    number += 1
                    yield _table_row(number, values)


def _table_row(number: int, values: Mapping[str, Any]) -> Row:
    given = {name: value for name, value in values.items() if value is not None}
    try:
        text = json.dumps(given, default=_plain, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return _damaged(number, b"", f"expected values that JSON can hold ({error})")
    return _row(number, text)


def _plain(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):  # an image or audio file
        return f"data:application/octet-stream;base64,{base64.b64encode(value).decode()}"
    if isinstance(value, (date, time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"a {type(value).__name__} is none of them")


@contextmanager
def _opened_table(path: Path) -> Iterator[Iterator[Any]]:
    """Its record batches."""
    kind = _TABLES[path.suffix.lower()]
    arrow = import_extra("pyarrow", "batch", f"{path}: reading tables")
    module = import_extra(f"pyarrow.{kind}", "batch", f"{path}: reading tables")
    try:
        if kind == "csv":
            empty = module.ConvertOptions(  # and NA is a word
                null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
            )
            with closing(module.open_csv(path, convert_options=empty)) as reader:
                yield iter(reader)
        else:
            with module.ParquetFile(path) as file:
                yield file.iter_batches(batch_size=_PART_ROWS)
    except arrow.ArrowException as error:
        raise InputError(f"{path}: expected a table ({error})") from error
