"""ClipModel: embeddings of images and texts; Hugging Face's processor and eager model say what is right."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from executorch_mm import (
    ClipModel,
    ContractError,
    ExecutorchMMError,
    ForkError,
    InputError,
    ModelLoadError,
    QueueFullError,
    TokenizerError,
    UnknownOptionError,
)
from executorch_mm.preprocess import ImageProcessor

MODELS = Path(__file__).resolve().parents[2] / "models"
FOLDER = MODELS / "clip"
ENTRY, FIXED = json.loads((FOLDER / "manifest.json").read_text())["models"]
EXPECTED = ENTRY["expected"]
IMAGES = np.array(EXPECTED["image_embeddings"], np.float32)
TEXTS = np.array(EXPECTED["text_embeddings"], np.float32)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def images() -> list[np.ndarray]:
    return [
        np.random.default_rng(image["seed"]).integers(0, 256, image["shape"], dtype=np.uint8)
        for image in EXPECTED["images"]
    ]


@pytest.fixture(scope="module")
def shared_model() -> Iterator[ClipModel]:
    with ClipModel(FOLDER / ENTRY["file"]) as model:
        yield model


@pytest.fixture
def model(shared_model: ClipModel) -> ClipModel:
    return shared_model


def test_images_of_any_size_get_the_eager_models_embeddings(model: ClipModel) -> None:
    made = model.encode_image(images(), normalize=False)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, IMAGES, **CLOSE)


def test_texts_get_the_eager_models_embeddings_in_several_calls(model: ClipModel) -> None:
    assert len(EXPECTED["texts"]) > model.methods["encode_text"].inputs[0].shape[0]
    np.testing.assert_allclose(model.encode_text(EXPECTED["texts"], normalize=False), TEXTS, **CLOSE)


def test_token_ids_are_taken_as_they_are(model: ClipModel) -> None:
    ids = [EXPECTED["ids"][0], np.array(EXPECTED["ids"][1])]
    np.testing.assert_allclose(model.encode_text(ids, normalize=False), TEXTS[:2], **CLOSE)


def test_embeddings_have_length_one_unless_told_otherwise(model: ClipModel) -> None:
    for made, raw in (
        (model.encode_image(images()), IMAGES),
        (model.encode_text(EXPECTED["texts"]), TEXTS),
    ):
        np.testing.assert_allclose(made, raw / np.linalg.norm(raw, axis=1, keepdims=True), **CLOSE)


def test_one_image_or_text_makes_one_row(model: ClipModel) -> None:
    first = images()[0]
    np.testing.assert_allclose(model.encode_image(first, normalize=False), IMAGES[:1], **CLOSE)
    np.testing.assert_allclose(
        model.encode_image(Image.fromarray(first), normalize=False), IMAGES[:1], **CLOSE
    )
    np.testing.assert_allclose(model.encode_text(EXPECTED["texts"][0], normalize=False), TEXTS[:1], **CLOSE)


def test_a_fixed_batch_is_filled_up_and_what_fills_it_is_dropped() -> None:
    with ClipModel(FOLDER / FIXED["file"]) as model:
        assert [model.methods[name].inputs[0].shape[0] for name in ("encode_image", "encode_text")] == [4, 2]
        for count in (1, 3):
            made = model.encode_image(images()[:count], normalize=False)
            np.testing.assert_allclose(made, IMAGES[:count], **CLOSE)
        made = model.encode_image([*images(), *images()], normalize=False)
        np.testing.assert_allclose(made, np.concatenate([IMAGES, IMAGES]), **CLOSE)
        assert len(EXPECTED["texts"]) % 2 == 1
        np.testing.assert_allclose(model.encode_text(EXPECTED["texts"], normalize=False), TEXTS, **CLOSE)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_refused_and_frees_nothing() -> None:
    with ClipModel(FOLDER / ENTRY["file"]) as model:
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                try:
                    model.encode_text([EXPECTED["ids"][0]])
                except ForkError:
                    model.close()
                    status = 0
            os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert len(model.encode_text([EXPECTED["ids"][0]])) == 1


def test_nothing_to_embed_makes_no_rows(model: ClipModel) -> None:
    assert model.encode_image([]).shape == (0, IMAGES.shape[1])
    assert model.encode_text([]).shape == (0, TEXTS.shape[1])


def test_a_prepared_image_is_not_copied_and_an_earlier_result_stays(model: ClipModel) -> None:
    processor = ImageProcessor.from_pretrained(FOLDER)
    first, second, _ = map(processor, images())
    before = model.copied_input_bytes
    made = model.encode_image(first, normalize=False)
    model.encode_image(second)
    np.testing.assert_allclose(made, IMAGES[:1], **CLOSE)
    assert model.copied_input_bytes == before
    halves = model.encode_image(first.astype(np.float16), normalize=False)
    np.testing.assert_allclose(halves, IMAGES[:1], rtol=0.02, atol=0.02)
    assert model.copied_input_bytes == before + first.size * 2


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a" * 40], "expected 1 to 12 tokens, got 42"),
        ([[]], "expected 1 to 12 tokens, got 0|got float64"),
        ([[0.5]], "expected a str or a row of token ids, got float64"),
        ([np.zeros((1, 2), np.int64)], r"got int64 \(1, 2\)"),
    ],
)
def test_texts_that_cannot_be_read_are_refused(model: ClipModel, texts: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.encode_text(texts)  # type: ignore[arg-type]


def test_what_is_no_image_is_refused(model: ClipModel) -> None:
    with pytest.raises(InputError):
        model.encode_image(np.zeros((5, 5, 7), np.uint8))
    with pytest.raises(InputError, match="NaN"):
        model.encode_image(np.full((3, 28, 28), np.nan, np.float32))


def test_files_beside_the_model_are_only_needed_for_what_they_do(tmp_path: Path) -> None:
    (tmp_path / "model.pte").write_bytes((FOLDER / ENTRY["file"]).read_bytes())
    with ClipModel(tmp_path / "model.pte") as model:
        np.testing.assert_allclose(
            model.encode_text([EXPECTED["ids"][0]], normalize=False), TEXTS[:1], **CLOSE
        )
        with pytest.raises(TokenizerError):
            model.encode_text("a red dog")
        with pytest.raises(InputError, match="preprocessor_config"):
            model.encode_image(images()[0])
    with ClipModel(tmp_path / "model.pte", FOLDER / "tokenizer.json", processor_path=FOLDER) as model:
        np.testing.assert_allclose(model.encode_text("a red dog", normalize=False), TEXTS[:1], **CLOSE)
        np.testing.assert_allclose(model.encode_image(images()[:1], normalize=False), IMAGES[:1], **CLOSE)


def test_a_program_without_such_methods_is_refused_by_name() -> None:
    with pytest.raises(ContractError, match=r"encode_image.*forward"):
        ClipModel(MODELS / "text" / "start.pte")
    with pytest.raises(ModelLoadError, match="no such file"):
        ClipModel(FOLDER / "absent.pte")
    with pytest.raises(InputError, match="num_threads"):
        ClipModel(FOLDER / ENTRY["file"], num_threads=0)


def test_a_closed_model_says_so() -> None:
    model = ClipModel(FOLDER / ENTRY["file"])
    model.close()
    with pytest.raises(ExecutorchMMError, match="closed"):
        model.encode_text([EXPECTED["ids"][0]])


def test_threads_and_tasks_each_get_their_own_answer(model: ClipModel) -> None:
    ids = EXPECTED["ids"]
    pixels = images()
    wrong: list[object] = []

    def ask(number: int) -> None:
        count = 1 + number % 5
        for _ in range(10):
            made = model.encode_text(ids * count, normalize=False)
            seen = model.encode_image(pixels[:1], normalize=False)
            if not np.allclose(made, np.tile(TEXTS, (count, 1)), **CLOSE):
                wrong.append(made)
            if not np.allclose(seen, IMAGES[:1], **CLOSE):
                wrong.append(seen)

    async def tasks() -> None:
        await asyncio.gather(*(asyncio.to_thread(ask, number) for number in range(4)))

    threads = [threading.Thread(target=ask, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    asyncio.run(tasks())
    for thread in threads:
        thread.join()
    assert wrong == []
    model.encode_text(ids * 3)
    before = model.copied_input_bytes
    model.encode_text(ids)
    copied = model.copied_input_bytes - before
    model.encode_text(ids * 3)
    assert model.copied_input_bytes - before == 4 * copied


def test_a_call_beyond_the_bound_is_refused_and_the_next_one_served() -> None:
    class Nested(io.BytesIO):
        """An image file that asks the model as well, while it is read."""

        asks: ClipModel

        def read(self, size: int | None = -1, /) -> bytes:
            self.asks.encode_text([EXPECTED["ids"][0]])
            return super().read(size)

    png = io.BytesIO()
    Image.fromarray(images()[0]).save(png, "png")
    for most, error in (
        (1, pytest.raises(QueueFullError, match="max_requests: 1")),
        (2, contextlib.nullcontext()),
    ):
        with ClipModel(FOLDER / ENTRY["file"], max_requests=most) as bounded:
            file = Nested(png.getvalue())
            file.asks = bounded
            with error:
                bounded.encode_image(file)
            np.testing.assert_allclose(bounded.encode_text(EXPECTED["ids"], normalize=False), TEXTS, **CLOSE)
    with pytest.raises(InputError, match="max_requests: expected 1 or more"):
        ClipModel(FOLDER / ENTRY["file"], max_requests=0)
    with pytest.raises(UnknownOptionError, match=r"max_request: .*did you mean max_requests"):
        ClipModel(FOLDER / ENTRY["file"], max_request=1)
