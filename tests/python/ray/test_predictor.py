"""The class for `Dataset.map_batches`: what Ray makes of columns is undone, and rows are answered as alone.

Columns are written here as Ray 2.60 gives them to a function (test_on_ray.py runs it).
"""

from __future__ import annotations

import hashlib
import io
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import executorch_mm
from executorch_mm import InputError, ModelLoadError, MultimodalRunner
from executorch_mm._loading import model_cache
from executorch_mm._loading.pretrained import find_model
from executorch_mm.demo import make_scene, render
from executorch_mm.ray import EmmPredictor, fetch_model
from executorch_mm.ray.columns import cell, clip, clips, images, media, num_rows, plain, sampling_params

MODEL = Path(executorch_mm.__file__).parent / "models" / "tiny_vlm"
IMAGES = [np.asarray(render(make_scene(seed=seed))) for seed in (900_000_000, 900_000_001, 900_000_002)]
QUESTION = "describe this picture"


def objects(*values: Any) -> Any:
    column = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        column[index] = value
    return column


@pytest.fixture(scope="module")
def predictor() -> Iterator[EmmPredictor]:
    made = EmmPredictor(str(MODEL), num_threads=1, should_continue_on_error=True)
    yield made
    made._runner.close()


@pytest.fixture(scope="module")
def expected() -> list[str]:
    with MultimodalRunner.demo(num_threads=1) as runner:
        return [
            runner.chat([{"role": "user", "content": [_pil(image), QUESTION]}], max_new_tokens=256).text
            for image in IMAGES
        ]


def _pil(image: Any) -> Any:
    from PIL import Image

    return Image.fromarray(image)


def _png(image: Any) -> bytes:
    file = io.BytesIO()
    _pil(image).save(file, "png")
    return file.getvalue()


def arrow_lists(image: Any) -> Any:
    """What Ray gives for lists of lists of lists: arrays of objects, the innermost of numbers."""
    return objects(*(objects(*(pixel.astype(np.int64) for pixel in line)) for line in image))


def read_only() -> Any:
    stacked = np.stack(IMAGES)
    stacked.setflags(write=False)
    return stacked


@pytest.mark.parametrize(
    "column",
    [
        read_only(),
        objects(*IMAGES),
        objects(*map(_png, IMAGES)),
        [_pil(image) for image in IMAGES],
        objects(*({"bytes": _png(image), "path": None} for image in IMAGES)),
        objects(*(objects(image) for image in IMAGES)),
        objects(*([image] for image in IMAGES)),
        objects(*map(arrow_lists, IMAGES)),
        [image.tolist() for image in IMAGES],
        [[image.tolist()] for image in IMAGES],
    ],
    ids=[
        *("one read-only array", "arrays", "bytes", "PIL", "bytes in mappings", "arrays of objects", "lists"),
        *("lists of numbers from Arrow", "lists of numbers", "lists of lists of numbers"),
    ],
)
def test_images_in_every_form_that_ray_gives_are_seen(
    predictor: EmmPredictor, expected: list[str], column: Any
) -> None:
    batch = {"prompt": objects(*[QUESTION] * 3), "image": column, "number": np.arange(3)}

    made = predictor(batch)

    assert made["generated_text"].tolist() == expected
    assert made["num_generated_tokens"].tolist() == [len(ids) for ids in made["generated_tokens"]]
    assert all(made["num_input_tokens"] > 16)
    assert all(made["time_taken_llm"] > 0)
    assert made["__inference_error__"].tolist() == ["", "", ""]
    assert made["number"] is batch["number"]


def test_messages_are_what_they_were_before_arrow(predictor: EmmPredictor, expected: list[str]) -> None:
    parts = objects(
        {"type": "image", "image": IMAGES[1], "text": None},
        {"type": "text", "text": QUESTION, "image": None},
    )
    messages = objects(
        objects({"role": "user", "content": parts}), objects({"role": "user", "content": "how"})
    )
    params = objects({"max_tokens": None, "top_k": None}, {"max_tokens": 2.0, "ignore_eos": True})

    made = predictor({"messages": messages, "sampling_params": params})

    assert made["generated_text"][0] == expected[1]
    assert made["num_generated_tokens"][1] == 2


def test_a_row_that_fails_has_its_error_or_ends_the_job(expected: list[str]) -> None:
    batch = {
        "prompt": objects(QUESTION, None, QUESTION, "many words " * 400, QUESTION),
        "image": objects(IMAGES[0], None, b"no image", None, IMAGES[1]),
        "sampling_params": objects(None, None, None, None, {"temprature": 1}),
    }
    goes_on = EmmPredictor(str(MODEL), num_threads=1, should_continue_on_error=True)
    stops = EmmPredictor(str(MODEL), num_threads=1)

    made = goes_on(batch)

    kinds = [error.partition(":")[0] for error in made["__inference_error__"]]
    assert kinds == ["", "InputError", "InputError", "CapacityError", "InputError"]
    assert made["generated_text"].tolist() == [expected[0], "", "", "", ""]
    assert made["num_generated_tokens"].tolist()[1:] == [0] * 4
    with pytest.raises(InputError, match="prompt: expected a text"):
        stops(batch)
    assert "__inference_error__" not in stops({"prompt": objects("how")})
    goes_on._runner.close()
    stops._runner.close()


def test_it_can_be_pickled_before_and_after_it_has_loaded_the_model(predictor: EmmPredictor) -> None:
    _ = predictor._runner

    again = pickle.loads(pickle.dumps(predictor))

    assert "_runner" not in vars(again)
    made = again({"prompt": ["how"], "sampling_params": [{"max_tokens": 1}]})
    assert made["num_generated_tokens"].tolist() == [1]
    again._runner.close()


def test_a_mono_clip_beside_stereo_ones_is_mono_again() -> None:
    samples = np.arange(4, dtype=np.float32)

    assert clip(samples[None], 16000)[0].tolist() == samples.tolist()
    assert clip(np.stack([samples, samples]), 16000.0)[0].shape == (2, 4)
    assert clip({"array": samples, "sampling_rate": 8000}, None)[1] == 8000
    assert clip({"bytes": b"RIFF", "path": "a.wav"}, 16000) == (b"RIFF", None)
    assert clip("a.wav", None) == ("a.wav", None)


@pytest.fixture(scope="module")
def said() -> str:
    with MultimodalRunner.demo(num_threads=1) as runner:
        content = [executorch_mm.make_audio_input(TONE, sampling_rate=16000), QUESTION]
        return runner.chat([{"role": "user", "content": content}], max_new_tokens=8).text


TONE = np.sin(np.arange(8000) * 0.1).astype(np.float32)
PARAMS = {"max_tokens": 8}


@pytest.mark.parametrize(
    ("audio", "rate"),
    [
        (TONE, 16000),
        (TONE[None], 16000.0),
        (TONE.tolist(), np.int64(16000)),
        ([TONE], 16000),
        (objects(TONE.astype(np.float64)), 16000),
        ({"array": TONE.tolist(), "sampling_rate": 16000}, None),
        ({"array": objects(TONE, TONE), "sampling_rate": 16000}, None),
        (np.stack([TONE, TONE]), 16000),
    ],
    ids=["mono", "beside stereo", "list", "list of one", "object", "mapping", "stereo mapping", "stereo"],
)
def test_clips_in_every_form_that_ray_gives_are_heard(
    predictor: EmmPredictor, said: str, audio: Any, rate: Any
) -> None:
    batch = {"prompt": [QUESTION], "audio": objects(audio), "sampling_rate": objects(rate)}

    made = predictor({**batch, "sampling_params": [PARAMS]})

    assert made["__inference_error__"].tolist() == [""]
    assert made["generated_text"].tolist() == [said]


def test_lists_of_numbers_that_make_no_array_and_rates_that_are_none_are_errors_of_their_rows(
    predictor: EmmPredictor,
) -> None:
    ragged = [[[0, 0, 0], [1, 1, 1]], [[0, 0, 0]]]
    batch = {
        "prompt": objects(QUESTION, QUESTION, QUESTION),
        "image": objects(ragged, None, None),
        "audio": objects(None, TONE, TONE),
        "sampling_rate": objects(None, "16k", 16000.5),
    }

    first, *others = predictor(batch)["__inference_error__"].tolist()

    assert first.startswith("InputError: image: expected lists of one length")
    assert all(error.startswith("InputError: sampling_rate: expected samples") for error in others)


def test_media_are_used_where_they_lie() -> None:
    column = read_only()
    assert np.shares_memory(images(column[1])[0], column)
    stereo = np.zeros((2, 9), np.float32)
    stereo.setflags(write=False)
    assert np.shares_memory(clips(stereo[:1], 8000)[0][0], stereo)


def test_a_batch_without_rows_has_columns_of_the_same_kinds(predictor: EmmPredictor) -> None:
    none = predictor({"prompt": objects()})
    some = predictor({"prompt": ["how"], "sampling_params": [{"max_tokens": 1}]})

    kinds = {name: column.dtype.kind for name, column in some.items() if isinstance(column, np.ndarray)}
    assert len(kinds) == 6
    assert {name: none[name].dtype.kind for name in kinds} == kinds


def test_cells_are_plain_again() -> None:
    assert plain({"a": objects(1, None), "b": None, "c": np.float64(2)}) == {"a": [1, None], "c": 2.0}
    assert sampling_params({"top_k": -1.0, "max_tokens": np.float64(5), "temperature": 1.0}) == {
        "top_k": 0,
        "max_tokens": 5,
        "temperature": 1.0,
    }
    assert type(sampling_params({"max_tokens": 5.0})["max_tokens"]) is int
    assert media(objects("a", None)) == ["a"]
    assert media(None) == []
    assert [cell(column, 0) for column in (None, [None], [float("nan")], np.full(1, np.nan, np.float32))] == [
        None
    ] * 4
    assert cell([2.5], 0) == 2.5


@pytest.mark.parametrize("batch", [{}, [1], {"a": [1], "b": [1, 2]}])
def test_what_is_no_batch_is_refused(batch: Any) -> None:
    with pytest.raises(InputError, match="batch: expected"):
        num_rows(batch)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="model: expected a path"):
        EmmPredictor(5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="temperature: expected 0 or more"):
        EmmPredictor("m", defaults={"temperature": -1})
    with pytest.raises(InputError, match="sha256: expected 64 hexadecimal digits"):
        fetch_model("m", sha256="abc")


def test_a_path_is_its_own_copy_and_its_checksum_is_looked_at(tmp_path: Path) -> None:
    right = hashlib.sha256((MODEL / "model.pte").read_bytes()).hexdigest()

    assert fetch_model(str(MODEL), sha256=right) == str(MODEL)
    assert fetch_model("owner/name") == "owner/name"
    with pytest.raises(ModelLoadError, match=f"sha256: expected {'0' * 64}, got {right}"):
        fetch_model(str(MODEL / "model.pte"), sha256="0" * 64)
    with pytest.raises(ModelLoadError, match=r"expected one \.pte file to check, got 0"):
        fetch_model(str(tmp_path), sha256=right)


def test_the_checksum_of_a_repository_is_looked_at_where_it_was_downloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def find(name: str) -> Any:
        asked.append(name)
        return find_model(MODEL)

    monkeypatch.setattr(model_cache, "find_model", find)
    right = hashlib.sha256((MODEL / "model.pte").read_bytes()).hexdigest()

    assert fetch_model("owner/name", sha256=right) == "owner/name"
    assert asked == ["owner/name"]
    with pytest.raises(ModelLoadError, match="owner/name: sha256: expected 0000"):
        fetch_model("owner/name", sha256="0" * 64)


def test_what_a_kill_has_left_of_a_copy_is_not_used(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="the extra executorch_mm[ray] is not installed")
    name = Path(fetch_model(MODEL.as_uri(), cache_dir=str(tmp_path / "first"))).name
    left = tmp_path / "second" / f"{name}.part"
    left.mkdir(parents=True)
    (left / "model.pte").write_bytes(b"half of it")
    (left / "other.pte").write_bytes(b"")

    made = Path(fetch_model(MODEL.as_uri(), cache_dir=str(tmp_path / "second")))

    assert {path.name for path in made.iterdir()} == {path.name for path in MODEL.iterdir()}
    assert (made / "model.pte").read_bytes() == (MODEL / "model.pte").read_bytes()


def test_a_cache_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    (tmp_path / f"{hashlib.sha256(b'memory://m None').hexdigest()[:32]}.lock").mkdir()
    with pytest.raises(InputError, match="cache_dir: Is a directory"):
        fetch_model("memory://m", cache_dir=str(tmp_path))


def test_a_model_behind_a_url_is_copied_once_for_all_processes_of_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec = pytest.importorskip("fsspec", reason="the extra executorch_mm[ray] is not installed")
    copied = []
    local = type(fsspec.filesystem("file"))
    get_file = local.get_file

    def count(self: Any, name: str, *rest: Any, **options: Any) -> None:
        copied.append(Path(name).name)
        get_file(self, name, *rest, **options)

    monkeypatch.setattr(local, "get_file", count)
    right = hashlib.sha256((MODEL / "model.pte").read_bytes()).hexdigest()
    found: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(fetch_model(MODEL.as_uri(), sha256=right, cache_dir=str(tmp_path)))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({*found}) == 1
    assert sorted(copied) == sorted(path.name for path in MODEL.iterdir())
    assert (Path(found[0]) / "model.pte").read_bytes() == (MODEL / "model.pte").read_bytes()
    with pytest.raises(ModelLoadError, match="sha256: expected 0000"):
        fetch_model(MODEL.as_uri(), sha256="0" * 64, cache_dir=str(tmp_path))
    with pytest.raises(ModelLoadError, match="FileNotFoundError"):
        fetch_model((tmp_path / "none").as_uri(), cache_dir=str(tmp_path))
    assert [path for path in tmp_path.iterdir() if path.suffix == ".part"] == []


@pytest.mark.parametrize("reuses", [False, True])
def test_a_row_is_read_as_alone_unless_prefixes_are_reused(reuses: bool) -> None:
    predictor = EmmPredictor(str(MODEL), num_threads=1, reuse_prefixes=reuses)
    predictor({"prompt": ["how many shapes are there?", "how many shapes are red?"]})
    assert (predictor._runner.stats.num_cached_tokens > 0) == reuses
    predictor._runner.close()
