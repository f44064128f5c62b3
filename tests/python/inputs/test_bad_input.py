"""Bad files, arrays and options: each a typed error that says what was expected, and the runner lives on."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from executorch_mm import (
    ContractError,
    ExecutorchMMError,
    GenerationConfig,
    InputError,
    ModelLoadError,
    MultimodalInput,
    MultimodalRunner,
    TokenizerError,
    make_audio_input,
    make_embedding_input,
    make_image_input,
    make_raw_audio_input,
    make_text_input,
    make_token_input,
)
from executorch_mm.demo import make_scene, render

IMAGE = np.asarray(render(make_scene(seed=950_000_001)))


@pytest.fixture
def damaged(tmp_path: Path, demo_folder: Path) -> Callable[[Callable[[bytes], bytes]], Path]:
    def write(change: Callable[[bytes], bytes]) -> Path:
        path = tmp_path / "model.pte"
        path.write_bytes(change((demo_folder / "model.pte").read_bytes()))
        return path

    return write


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: data[:1000],
        lambda data: data[: len(data) // 2],
        lambda data: b"\0" * len(data),
        lambda data: b"PK\x03\x04" + data[4:],
        lambda data: data[:4] + b"ET99" + data[8:],
        lambda data: random.Random(1).randbytes(5000),
    ],
    ids=["empty", "7 bytes", "1000 bytes", "half", "zeros", "zip", "other version", "noise"],
)
def test_a_damaged_model_is_a_load_error(
    damaged: Callable[[Callable[[bytes], bytes]], Path], demo_folder: Path, change: Callable[[bytes], bytes]
) -> None:
    path = damaged(change)
    with pytest.raises(ModelLoadError, match=r"model\.pte"):
        MultimodalRunner(path, demo_folder)


def test_missing_files_and_folders_are_named(tmp_path: Path, demo_folder: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"nowhere\.pte: no such file"):
        MultimodalRunner(tmp_path / "nowhere.pte", demo_folder)
    with pytest.raises(ModelLoadError, match="expected a file, got a directory"):
        MultimodalRunner(tmp_path, demo_folder)
    os.mkfifo(tmp_path / "pipe.pte")
    with pytest.raises(ModelLoadError, match="not a file"):
        MultimodalRunner(tmp_path / "pipe.pte", demo_folder)
    with pytest.raises(ModelLoadError, match=r"weights\.ptd: no such file"):
        MultimodalRunner(demo_folder / "model.pte", demo_folder, data_path=tmp_path / "weights.ptd")
    with pytest.raises(TokenizerError, match="tokenizer"):
        MultimodalRunner(demo_folder / "model.pte", tmp_path / "tokenizer.json")
    shutil.copy(demo_folder / "model.pte", tmp_path)
    with pytest.raises(TokenizerError, match="tokenizer"):
        MultimodalRunner(tmp_path / "model.pte")


def test_wrong_tokenizers_are_refused(tmp_path: Path, demo_folder: Path) -> None:
    for content in (b"", b"{}", b"not json", b"\0\1\2\3" * 100):
        path = tmp_path / "tokenizer.json"
        path.write_bytes(content)
        with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
            MultimodalRunner(demo_folder / "model.pte", path)
    with pytest.raises(TokenizerError, match="pte"):
        MultimodalRunner(demo_folder / "model.pte", demo_folder / "model.pte")


def test_token_ids_beyond_the_vocabulary_are_refused(runner: MultimodalRunner) -> None:
    limit = runner.contract.vocab_size - 1
    with pytest.raises(InputError, match=rf"expected token ids in 0\.\.{limit}, got {limit + 1}"):
        runner.prefill(make_token_input([limit + 1]))
    with pytest.raises(InputError, match="ids of 0 or more"):
        make_token_input([-1])


def test_options_are_checked_at_the_door(demo_folder: Path) -> None:
    with pytest.raises(InputError, match="load_mode: expected 'mmap'"):
        MultimodalRunner(demo_folder / "model.pte", load_mode="paper")  # type: ignore[arg-type]
    for wrong in (0, -1, None, "two", 1.5):
        with pytest.raises(InputError, match=f"num_threads: expected 1 or more, or 'auto', got {wrong!r}"):
            MultimodalRunner(demo_folder / "model.pte", num_threads=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": -2}, "max_new_tokens: expected -1"),
        ({"max_new_tokens": 1.5}, "max_new_tokens: expected an int"),
        ({"seq_len": -5}, "seq_len"),
        ({"temperature": -0.1}, "temperature: expected 0 or more"),
        ({"temperature": float("nan")}, "temperature: expected a finite number"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0.0}, r"top_p: expected a number in \(0, 1\]"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": "x"}, "seed"),
        ({"stop": [""]}, "stop: expected non-empty strings"),
        ({"num_bos": -1}, "num_bos"),
    ],
)
def test_a_wrong_generation_option_names_its_field(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GenerationConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((64,), np.uint8), "3-dimensional"),
        (np.zeros((2, 3, 64, 64), np.uint8), "3-dimensional"),
        (np.zeros((2, 64, 64), np.uint8), r"3 \(RGB\) or 4 \(RGBA\)"),
        (np.zeros((0, 64, 3), np.uint8), "at least one pixel"),
        (np.zeros((64, 64, 3), np.int32), "expected uint8, uint16 or floats, got int32"),
        (Image.new("RGB", (0, 5)), "at least one pixel"),
        ("image.png", "No such file"),
        (None, "expected a numpy array"),
    ],
)
def test_a_wrong_image_is_refused_when_it_is_made(image: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_image_input(image)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(64, 64, 3), (3, 64, 64), (5, 7, 3)])
def test_an_image_with_nan_or_infinity_is_refused_when_it_is_read(
    runner: MultimodalRunner, shape: tuple[int, ...], value: float
) -> None:
    with pytest.raises(InputError, match="NaN or infinit"):
        runner.prefill(make_image_input(np.full(shape, value, np.float32)))
    assert runner.position == 0


def test_wrong_audio_embeddings_and_texts_are_refused() -> None:
    for make in (make_audio_input, make_raw_audio_input):
        with pytest.raises(InputError, match="expected shape"):
            make(np.zeros(5, np.float32))
        with pytest.raises(InputError, match="at least one element"):
            make(np.zeros((1, 0, 5), np.float32))
    with pytest.raises(InputError, match="hidden_size"):
        make_embedding_input(np.zeros(5, np.float32))
    with pytest.raises(InputError, match="expected a str"):
        make_text_input(5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected ints, got float64"):
        make_token_input([0.5])  # type: ignore[list-item]
    with pytest.raises(InputError):
        MultimodalInput(object())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("", "expected at least one token"),
        ([], "expected at least one token"),
        ([""], "expected at least one token"),
        (["red", 5], "input 1: expected a str"),
        (5, "inputs: expected a str"),
        ([IMAGE], "input 0: expected a str, a PIL image or what a make_"),
        ([make_audio_input(np.zeros((1, 80, 300), np.float32))], "audio"),
        ([make_raw_audio_input(np.zeros((1, 1, 300), np.float32))], "audio"),
        ([make_embedding_input(np.zeros((2, 5), np.float32))], "embeddings"),
    ],
)
def test_a_prompt_the_model_cannot_take_changes_nothing(
    runner: MultimodalRunner, inputs: object, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        runner.generate_text(inputs)  # type: ignore[arg-type]
    assert runner.position == 0
    assert runner.generate_text(["<|user|>", make_image_input(IMAGE), "Describe this.<|end|><|assistant|>"])


def test_a_program_that_is_no_language_model_is_a_contract_error(demo_folder: Path, tmp_path: Path) -> None:
    data = (demo_folder / "model.pte").read_bytes()
    renamed = tmp_path / "model.pte"
    renamed.write_bytes(data.replace(b"text_decoder", b"best_decoder"))
    with pytest.raises(
        ContractError, match=r"expected a method forward, or token_embedding and text_decoder"
    ):
        MultimodalRunner(renamed, demo_folder)


def test_an_unknown_operator_is_named_at_load(demo_folder: Path, tmp_path: Path) -> None:
    data = (demo_folder / "model.pte").read_bytes()
    renamed = tmp_path / "model.pte"
    renamed.write_bytes(data.replace(b"llama::custom_sdpa", b"llama::costum_sdpa"))
    with pytest.raises(ModelLoadError, match=r"text_decoder.*llama::costum_sdpa"):
        MultimodalRunner(renamed, demo_folder)


def test_all_errors_are_runtime_errors_and_pickle() -> None:
    import pickle

    from executorch_mm import CapacityError, errors

    for name in dir(errors):
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert issubclass(kind, ExecutorchMMError)
            assert issubclass(kind, RuntimeError)
    copy = pickle.loads(pickle.dumps(CapacityError("full", 5, 3)))
    assert (str(copy), copy.needed, copy.available) == ("full", 5, 3)
