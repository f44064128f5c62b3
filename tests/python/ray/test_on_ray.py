"""Ray itself: rows go through actors and come back, with the answers of one machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import executorch_mm
from executorch_mm.demo import make_scene, render
from executorch_mm.ray import EmmPredictor

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.ray

MODEL = str(Path(executorch_mm.__file__).parent / "models" / "tiny_vlm")
SCENES = range(900_000_000, 900_000_024)
QUESTION = "describe this picture"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    images = [np.asarray(render(make_scene(seed=seed))) for seed in SCENES]
    return [{"id": index, "prompt": QUESTION, "image": image} for index, image in enumerate(images)]


@pytest.fixture(scope="module")
def expected(rows: list[dict[str, Any]]) -> list[str]:
    predictor = EmmPredictor(MODEL, num_threads=1)
    made = predictor({name: [row[name] for row in rows] for name in rows[0]})
    return [str(text) for text in made["generated_text"]]


def answered(
    rows: list[dict[str, Any]], predictor: type[EmmPredictor], **options: Any
) -> list[dict[str, Any]]:
    made = ray.data.from_items(rows).map_batches(
        predictor,
        fn_constructor_kwargs={"model": MODEL, "should_continue_on_error": True},
        batch_size=4,
        num_cpus=1,
        **options,
    )
    return sorted(made.take_all(), key=lambda row: int(row["id"]))


def test_rows_come_back_with_the_answers_of_one_machine(
    rows: list[dict[str, Any]], expected: list[str]
) -> None:
    mixed = [{**row, "sampling_params": {"max_tokens": 3} if row["id"] == 1 else None} for row in rows]
    mixed[2] = {**mixed[2], "prompt": None}

    made = answered(mixed, EmmPredictor, compute=ray.data.ActorPoolStrategy(size=2))

    assert [row["id"] for row in made] == list(range(len(rows)))
    assert len(made[1]["generated_tokens"]) == made[1]["num_generated_tokens"] == 3
    assert made[2]["__inference_error__"].startswith("InputError: prompt")
    assert {row["__inference_error__"] for row in made if row["id"] != 2} == {""}
    others = [index for index in range(len(rows)) if index not in (1, 2)]
    assert [made[index]["generated_text"] for index in others] == [expected[index] for index in others]


def test_a_worker_that_is_killed_loses_no_row(
    rows: list[dict[str, Any]], expected: list[str], tmp_path: Path
) -> None:
    mark = tmp_path / "died"

    class Dying(EmmPredictor):
        def __call__(self, batch: Any) -> dict[str, Any]:
            if 8 in batch["id"] and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)

    made = answered(rows, Dying, compute=ray.data.ActorPoolStrategy(size=2))

    assert mark.exists()
    assert [row["generated_text"] for row in made] == expected
