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


def test_columns_of_mixed_shapes_and_of_lists_give_the_answers_of_alone() -> None:
    """Images of several sizes, grey ones beside coloured ones, lists of numbers, mono beside stereo."""
    large, small = (np.asarray(render(make_scene(seed=seed))) for seed in SCENES[:2])
    tone = np.sin(np.arange(8000) * 0.1).astype(np.float32)
    images: dict[str, list[Any]] = {
        "sizes": [np.kron(large, np.ones((2, 2, 1), np.uint8)), small],
        "grey": [large[..., 0], small],
        "lists": [large.tolist(), small.tolist()],
        "missing": [large, None],
    }
    predictor = EmmPredictor(MODEL, num_threads=1, defaults={"max_tokens": 12})
    rows: list[dict[str, Any]] = []
    for column in images.values():
        rows = [{"id": index, "prompt": QUESTION, "image": value} for index, value in enumerate(column)]
        assert texts(rows) == alone(predictor, rows)
    rows = [
        {"id": index, "prompt": QUESTION, "audio": value, "sampling_rate": 16_000}
        for index, value in enumerate([tone, np.stack([tone, tone]), tone[:4000]])
    ]
    assert texts(rows) == alone(predictor, rows)


def test_a_model_has_as_many_threads_as_its_actor_has_cpus() -> None:
    class Telling(EmmPredictor):
        def __call__(self, batch: Any) -> dict[str, Any]:
            made = super().__call__(batch)
            return {**made, "num_threads": np.full(len(batch["prompt"]), self._runner.stats.num_threads)}

    made = ray.data.from_items([{"prompt": "how many"}]).map_batches(
        Telling,
        fn_constructor_kwargs={"model": MODEL, "defaults": {"max_tokens": 1}},
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=2,
    )

    assert [row["num_threads"] for row in made.take_all()] == [2]


def texts(rows: list[dict[str, Any]]) -> list[str]:
    options = {"model": MODEL, "num_threads": 1, "defaults": {"max_tokens": 12}}
    made = ray.data.from_items(rows, override_num_blocks=1).map_batches(
        EmmPredictor, fn_constructor_kwargs=options, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=1
    )
    return [str(row["generated_text"]) for row in sorted(made.take_all(), key=lambda row: int(row["id"]))]


def alone(predictor: EmmPredictor, rows: list[dict[str, Any]]) -> list[str]:
    answers = []
    for row in rows:
        value = np.asarray(row["image"], np.uint8) if row.get("image") is not None else None
        cells = {**row, **({} if value is None else {"image": value})}
        answers += [
            str(text) for text in predictor({name: [cell] for name, cell in cells.items()})["generated_text"]
        ]
    return answers
