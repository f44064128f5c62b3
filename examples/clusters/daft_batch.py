"""Rows of a Daft data frame answered by the model in the wheel.

    pip install executorch_mm daft
    python examples/clusters/daft_batch.py

The class of `executorch_mm.ray` is built once in each worker; it imports no Ray.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import daft

import executorch_mm
from executorch_mm.demo import make_scene, render
from executorch_mm.ray import EmmPredictor

MODEL = str(Path(executorch_mm.__file__).parent / "models" / "tiny_vlm")


@daft.cls(max_concurrency=2)
class Describer:
    """Answers rows of images and questions."""

    def __init__(self) -> None:
        self.predictor = EmmPredictor(MODEL, num_threads=1)

    @daft.method.batch(return_dtype=daft.DataType.string())
    def answer(self, image: Any, prompt: Any) -> Any:
        """The answers of a batch of rows."""
        made = self.predictor({"image": image.to_pylist(), "prompt": prompt.to_pylist()})
        return daft.Series.from_pylist([str(text) for text in made["generated_text"]])


def png(seed: int) -> bytes:
    """A picture, as files of them are read: `daft.functions.download(column)`."""
    file = io.BytesIO()
    render(make_scene(seed=seed)).save(file, "PNG")
    return file.getvalue()


def main() -> None:
    seeds = [*range(7, 11)]
    frame = daft.from_pydict(
        {"id": seeds, "image": [png(seed) for seed in seeds], "prompt": ["describe this picture"] * 4}
    )
    describer = Describer()
    made = frame.with_column("text", describer.answer(frame["image"], frame["prompt"])).sort("id").to_pydict()
    for seed, text in zip(made["id"], made["text"], strict=True):
        print(seed, text)


if __name__ == "__main__":
    main()
