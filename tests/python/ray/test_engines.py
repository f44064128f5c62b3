"""The class of rows under other engines: the examples for Daft and Spark, where these are installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from executorch_mm.demo import make_scene

EXAMPLES = Path(__file__).parents[3] / "examples" / "clusters"
pytestmark = pytest.mark.ray


def lines_of(program: str, *, ends_well: bool = True) -> list[str]:
    command = [sys.executable, str(EXAMPLES / program)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 or (done.returncode < 0 and not ends_well), done.stderr
    return done.stdout.splitlines()


def expect_seven(line: str) -> None:
    assert line.startswith("7 ")
    assert all(f"{shape.colour} {shape.shape}" in line for shape in make_scene(seed=7).shapes)


def test_daft_answers_rows() -> None:
    pytest.importorskip("daft")
    # Daft 0.7.26 ends by a signal now and then after all is done, in programs without this package too.
    lines = lines_of("daft_batch.py", ends_well=False)
    assert [line.split()[0] for line in lines] == ["7", "8", "9", "10"]
    expect_seven(lines[0])


def test_spark_answers_rows_in_pandas_and_in_arrow() -> None:
    pytest.importorskip("pyspark")
    *lines, same = lines_of("spark_batch.py")
    expect_seven(lines[0])
    assert same == "the same by Arrow: True"
