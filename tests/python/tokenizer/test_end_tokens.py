"""Which tokens end an answer, where the program and the tokenizer disagree."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import MultimodalRunner
from executorch_mm._loading.end_tokens import end_tokens, ordinary_ends
from executorch_mm._loading.pretrained import find_model
from executorch_mm.cli.doctor.check import Check
from executorch_mm.cli.doctor.model import check_model
from executorch_mm.tokenizer import Tokenizer, load_tokenizer

tokenizers = pytest.importorskip("tokenizers")

FOLDER = Path(__file__).resolve().parents[2] / "models" / "text"
ENDS_AT = 1  # get_eos_id of these programs, which have 64 tokens


def write_tokenizer(folder: Path, *, special: dict[int, str]) -> Path:
    """A vocabulary of 64 words, some of them control tokens."""
    names = {i: special.get(i, f"w{i}") for i in range(64)} | {20: "<|eot|>", 21: "[END]"}
    library = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({name: i for i, name in names.items()}, unk_token="w0")
    )
    library.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    library.add_special_tokens(list(special.values()))
    library.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A program that ends at a token which is a word here, as export_llama up to 1.0.1 made them."""
    shutil.copy(FOLDER / "start.pte", tmp_path / "model.pte")
    return write_tokenizer(tmp_path, special={3: "<s>", 9: "<|im_end|>"})


def test_a_word_that_the_program_ends_at_does_not_end_an_answer(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = iter([7, ENDS_AT, 8, 9])

    def say(_: list[int], logits: np.ndarray) -> None:
        logits[:] = -np.inf
        logits[next(script)] = 0

    with (
        caplog.at_level(logging.WARNING, logger="executorch_mm"),
        MultimodalRunner(folder / "model.pte") as runner,
    ):
        assert runner.contract.eos_ids == [ENDS_AT]
        result = runner.generate_result("w5", logits_processors=[say])
    assert (result.token_ids, result.stopped_by) == ((7, ENDS_AT, 8, 9), 9)
    (warning,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert "ends answers at 1 ('w1')" in warning
    assert "'<|im_end|>' do" in warning


def check_folder(folder: Path) -> Iterator[Check]:
    return check_model(lambda: find_model(folder))


def test_the_doctor_tells_it(folder: Path) -> None:
    (check,) = (
        check for check in check_model(lambda: find_model(folder / "model.pte")) if check.name == "end tokens"
    )
    assert check.status == "warning"
    assert "1 ('w1')" in check.detail
    assert check.advice
    write_tokenizer(folder, special={1: "</s>", 9: "<|im_end|>"})
    assert not [
        check for check in check_model(lambda: find_model(folder / "model.pte")) if check.name == "end tokens"
    ]


@pytest.mark.parametrize(
    ("special", "named", "declared", "ends"),
    [
        ({9: "<|im_end|>"}, [1], None, [9]),
        ({9: "<|im_end|>"}, [1, 9], None, [9]),
        ({9: "<|im_end|>", 1: "<pad>"}, [1], None, [1, 9]),  # a control token may well end answers
        ({9: "<|im_end|>"}, [1], [1, 12], [1, 9, 12]),  # so may what generation_config.json names
        ({9: "<|im_end|>"}, [1], 12, [9, 12]),
        ({9: "<|im_end|>"}, [70], None, [9, 70]),  # no word of this vocabulary
        ({9: "<|im_end|>"}, [], None, [9]),
        ({9: "<|im_end|>"}, [20, 21, 22], None, [9, 20, 21]),  # 20 and 21 look like control tokens
        ({3: "<s>"}, [1], None, [1]),  # nothing else ends an answer
        ({}, [1, 2], None, [1, 2]),
        ({}, [1], 2, [1, 2]),  # one word is as good as the other
    ],
)
def test_the_tokenizer_s_control_tokens_win_over_the_program_s_words(
    special: dict[int, str], named: list[int], declared: object, ends: list[int], tmp_path: Path
) -> None:
    if declared is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": declared}))
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, special=special))
    assert end_tokens(named, tokenizer, [tmp_path]) == ends
    assert ordinary_ends(named, tokenizer, [tmp_path]) == sorted({*named} - {*ends})


def test_sound_models_have_nothing_to_warn_about(
    demo_folder: Path, caplog: pytest.LogCaptureFixture, runner: MultimodalRunner
) -> None:
    tokenizer: Tokenizer = load_tokenizer(demo_folder)
    with caplog.at_level(logging.WARNING, logger="executorch_mm"):
        assert end_tokens(runner.contract.eos_ids, tokenizer, [demo_folder]) == sorted(tokenizer.eos_ids)
    assert not caplog.records
