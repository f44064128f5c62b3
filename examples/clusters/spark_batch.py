"""Rows of a Spark data frame answered by the model in the wheel, by mapInPandas and by mapInArrow.

    pip install "executorch_mm[batch]" pyspark pandas        # and a Java 17
    python examples/clusters/spark_batch.py

The functions build the class of `executorch_mm.ray` once for each partition; it imports no Ray.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import executorch_mm
from executorch_mm.demo import make_scene, render
from executorch_mm.ray import EmmPredictor

MODEL = str(Path(executorch_mm.__file__).parent / "models" / "tiny_vlm")
SCHEMA = "id long, generated_text string, num_generated_tokens long"
COLUMNS = ["id", "generated_text", "num_generated_tokens"]


def in_pandas(frames: Iterator[Any]) -> Iterator[Any]:
    """For mapInPandas."""
    import pandas as pd

    predictor = EmmPredictor(MODEL, num_threads=1)  # Spark runs a partition on each core
    for frame in frames:
        made = predictor({name: frame[name].to_list() for name in frame.columns})
        yield pd.DataFrame({name: made[name] for name in COLUMNS})


def in_arrow(batches: Iterator[Any]) -> Iterator[Any]:
    """For mapInArrow."""
    import pyarrow as pa

    predictor = EmmPredictor(MODEL, num_threads=1)
    for batch in batches:
        made = predictor(batch.to_pydict())
        yield pa.RecordBatch.from_pydict({name: made[name] for name in COLUMNS})


def png(seed: int) -> bytes:
    """A picture, as files of them are read: `spark.read.format("binaryFile")`."""
    file = io.BytesIO()
    render(make_scene(seed=seed)).save(file, "PNG")
    return file.getvalue()


def main() -> None:
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else workers are the first Python on the path
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    rows = [(seed, bytearray(png(seed)), "describe this picture") for seed in range(7, 11)]
    frame = spark.createDataFrame(rows, "id long, image binary, prompt string").repartition(2)
    by_pandas = sorted(frame.mapInPandas(in_pandas, SCHEMA).collect())
    by_arrow = sorted(frame.mapInArrow(in_arrow, SCHEMA).collect())
    for row in by_pandas:
        print(row.id, row.generated_text)
    print("the same by Arrow:", by_arrow == by_pandas)
    spark.stop()


if __name__ == "__main__":
    main()
