"""The files of a batch: rows of every kind, and results of which each is whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executorch_mm import InputError
from executorch_mm.batch.journal import Journal, json_line
from executorch_mm.batch.rows import count_rows, read_rows
from executorch_mm.batch.tasks import endpoint_of

TEXTS = st.text(max_size=8)
RESULTS = st.lists(st.tuples(TEXTS, TEXTS, st.booleans()), max_size=6, unique_by=lambda result: result[0])


def told(path: Path) -> list[tuple[int, str, Any]]:
    return [
        (row.number, row.id, str(row.error) if row.error else json.loads(row.text)) for row in read_rows(path)
    ]


def test_lines_are_rows_with_the_ids_that_they_give(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'{"id": "a", "prompt": "\xc3\xa4"}\r\n\n   \n{"custom_id": "b", "id": "x"}\n{"id": 5}\n'
        b'{"prompt": 1}\n'
        b'[1]\nnonsense\n{"id": NaN}\n{"id": {}}\n\xff\n{"id": "last"}'
    )

    rows = told(path)

    assert rows[:4] == [
        (1, "a", {"id": "a", "prompt": "ä"}),
        (4, "b", {"custom_id": "b", "id": "x"}),
        (5, "5", {"id": 5}),
        (6, "line 6", {"prompt": 1}),
    ]
    assert [(number, row_id) for number, row_id, _ in rows[4:9]] == [(n, f"line {n}") for n in range(7, 12)]
    for (_, _, error), said in zip(
        rows[4:9],
        (
            "expected a JSON object, got [1]",
            "expected JSON",
            "NaN is no number",
            "id: expected a text",
            "JSON",
        ),
        strict=True,
    ):
        assert said in error
    assert rows[9:] == [(12, "last", {"id": "last"})]
    assert count_rows(path) == 12


def test_a_line_that_is_too_long_is_an_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executorch_mm.batch.rows.MOST_LINE_BYTES", 40)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"id": "x" * 100}) + '\n{"id": "a"}\n' + json.dumps({"id": "y" * 100}))

    first, good, last = read_rows(path)

    assert (first.id, good.id, last.id) == ("line 1", "a", "line 3")
    assert str(first.error) == "line 1: expected at most 40 bytes in a line"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_are_rows_too(tmp_path: Path, kind: str) -> None:
    arrow = pytest.importorskip("pyarrow", reason="the extra executorch_mm[batch] is not installed")
    columns: dict[str, list[Any]] = {
        "id": ["a", "b", None],
        "prompt": ["one", None, "NA"],
        "max_tokens": [3, 4, None],
        "day": [date(2026, 1, 2)] * 3,
    }
    if kind == "parquet":
        columns["image"] = [{"bytes": b"\x00\xff", "path": "p"}, {"bytes": None, "path": "q"}, None]
    path = tmp_path / f"rows.{kind.upper()}"
    table = arrow.table(columns)
    if kind == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(table, path)
    else:
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, path, row_group_size=2)

    rows = told(path)

    assert count_rows(path) == 3
    assert [(number, row_id) for number, row_id, _ in rows] == [(1, "a"), (2, "b"), (3, "line 3")]
    first = {"id": "a", "prompt": "one", "max_tokens": 3, "day": "2026-01-02"}
    if kind == "parquet":
        first["image"] = {"bytes": "data:application/octet-stream;base64,AP8=", "path": "p"}
        assert rows[1][2]["image"] == {"bytes": None, "path": "q"}
    assert rows[0][2] == first
    assert [row[2].get("prompt") for row in rows] == ["one", None, "NA"]
    path.write_bytes(b"PAR1 nonsense" if kind == "parquet" else b"a,b\n1\n")
    with pytest.raises(InputError, match=f"rows.{kind.upper()}: expected a table"):
        list(read_rows(path))


@pytest.mark.parametrize(
    ("row", "endpoint"),
    [
        ({"prompt": "a"}, "chat"),
        ({"image": "a"}, "chat"),
        ({"audio": "a", "prompt": "b"}, "chat"),
        ({"audio": "a"}, "transcriptions"),
        ({"text": "a"}, "embeddings"),
        ({"url": "/v1/embeddings", "body": {}}, "embeddings"),
        ({"url": "/v1/audio/transcriptions", "body": {}}, "transcriptions"),
        ({"url": "/v1/other", "body": {}}, "chat"),
        ({}, "chat"),
    ],
)
def test_the_first_row_tells_what_a_batch_asks_for(row: dict[str, Any], endpoint: str) -> None:
    assert endpoint_of(row) == endpoint


def written(path: Path, results: list[tuple[str, str, bool]]) -> None:
    journal = Journal(path)
    for row_id, text, is_error in results:
        result = {"id": row_id, "error": {"message": text}} if is_error else {"id": row_id, "text": text}
        journal.write(row_id, result, is_error=is_error)
    journal.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RESULTS, st.data())
def test_wherever_a_file_of_results_was_cut_off_whole_results_count(
    tmp_path: Path, results: list[tuple[str, str, bool]], data: st.DataObject
) -> None:
    path = tmp_path / "out.jsonl"
    path.unlink(missing_ok=True)
    written(path, results)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])

    journal = Journal(path)
    num_whole = whole[:cut].count(b"\n")
    assert journal.ids == {row_id for row_id, _, _ in results[:num_whole]}
    assert journal.num_errors == sum(is_error for _, _, is_error in results[:num_whole])
    journal.close()
    written(path, results[num_whole:])

    assert path.read_bytes() == whole
    Journal(path, drops_errors=True).close()
    assert [json.loads(line)["id"] for line in path.read_bytes().splitlines()] == [
        row_id for row_id, _, is_error in results if not is_error
    ]


@pytest.mark.parametrize(
    "content", [b"notes\n", b"no line", b'{"a": 1}\n', b"[1]\n", b'{"id": "a"}\nx\n', b"\xff\n"]
)
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)

    with pytest.raises(
        InputError, match=r"line \d is no result of a batch: give another file for the results"
    ):
        Journal(path)
    assert path.read_bytes() == content


def test_one_process_at_a_time_writes_results(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    journal = Journal(path)

    with pytest.raises(InputError, match="another process writes its results to this file"):
        Journal(path)
    journal.close()
    Journal(path).close()


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    """The limit on the size of files stands for it: the write that reaches it is cut short."""
    path = tmp_path / "out.jsonl"
    program = f"""
import resource, signal
from pathlib import Path
from executorch_mm.batch.journal import Journal, json_line

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
journal = Journal(Path({str(path)!r}))
try:
    for index in range(100):
        journal.write(str(index), {{"id": str(index), "text": "x" * 90}}, is_error=False)
except OSError as error:
    print(len(journal.ids), error.errno)
"""
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout

    count, number = map(int, said.split())
    assert number != 0
    assert 5 < count < 10
    assert path.read_bytes().endswith(b"\n")
    assert len(path.read_bytes().splitlines()) == count


@pytest.mark.skipif(os.geteuid() == 0, reason="this system lets root write everywhere")
def test_a_file_that_may_not_be_written_is_the_systems_error(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.touch(mode=0o400)

    with pytest.raises(PermissionError):
        Journal(path)


def test_half_a_surrogate_pair_is_written_as_json_can(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "out.jsonl")) as journal:
        journal.write("\ud800", {"id": "\ud800", "text": "ä"}, is_error=False)
    with closing(Journal(tmp_path / "out.jsonl")) as again:
        assert again.ids == {"\ud800"}
    assert json.loads((tmp_path / "out.jsonl").read_bytes()) == {"id": "\ud800", "text": "ä"}
    assert json_line({"text": "ä"}) == '{"text": "ä"}\n'.encode()
