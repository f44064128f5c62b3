"""Files that are fine one by one and do not fit each other."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import executorch_mm
from executorch_mm import ContractError, ExecutorchMMError, GenerationConfig, MultimodalRunner, inspect_model

FOLDER = Path(executorch_mm.__file__).parent / "models" / "tiny_vlm"
HIDDEN, VOCAB = 192, 640


def shrunk(shape: tuple[int, ...], last: int, path: Path) -> Iterator[Path]:
    """The model with another last size at each place where `shape` is written, one at a time."""
    data = (FOLDER / "model.pte").read_bytes()
    pattern = struct.pack(f"<{len(shape) + 1}i", len(shape), *shape)
    at = data.find(pattern)
    while at >= 0:
        changed = bytearray(data)
        struct.pack_into("<i", changed, at + 4 * len(shape), last)
        path.write_bytes(changed)
        yield path
        at = data.find(pattern, at + 4)


@pytest.mark.parametrize(
    ("method", "shape"), [("token_embedding", (1, 255, HIDDEN)), ("vision_encoder", (1, 16, HIDDEN))]
)
def test_an_encoder_and_a_decoder_that_disagree_on_the_hidden_size_are_refused(
    method: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    refused = 0
    for path in shrunk(shape, HIDDEN // 2, tmp_path / "model.pte"):
        report = inspect_model(path)
        found = report.find(method)
        assert found is not None
        if found.outputs[0].shape != (*shape[:-1], HIDDEN // 2):
            continue
        with pytest.raises(ExecutorchMMError) as error:
            MultimodalRunner(path, FOLDER)
        if not any("will not be loaded" in problem for problem in report.problems):
            assert isinstance(error.value, ContractError)
            assert method in str(error.value)
            assert str(HIDDEN) in str(error.value)
        refused += 1
    assert refused == 1


@pytest.mark.parametrize("num_ids", [300, VOCAB + 500])
def test_a_tokenizer_with_another_number_of_ids_ends_in_text_or_an_error(
    num_ids: int, tmp_path: Path
) -> None:
    tokenizer = json.loads((FOLDER / "tokenizer.json").read_text())
    vocab: dict[str, int] = tokenizer["model"]["vocab"]
    if num_ids < VOCAB:
        kept = {token: token_id for token, token_id in vocab.items() if token_id < num_ids}
        tokenizer["model"]["merges"] = [
            pair
            for pair in tokenizer["model"]["merges"]
            if _product(pair) in kept and set(_halves(pair)) <= set(kept)
        ]
        tokenizer["model"]["vocab"] = kept
    else:
        first = max(vocab.values()) + 1
        vocab.update({f"unheard-of-{token_id}": token_id for token_id in range(first, num_ids)})
    for path in FOLDER.iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = GenerationConfig(max_new_tokens=8, temperature=5.0, seed=1, ignore_eos=True)
    with MultimodalRunner(tmp_path / "model.pte") as runner:
        for _ in range(5):
            assert isinstance(runner.generate_text("how many shapes are there?", config), str)
            runner.reset()
        if num_ids > VOCAB:
            with pytest.raises(executorch_mm.InputError, match=f"0..{VOCAB - 1}"):
                runner.generate_text(executorch_mm.make_token_input([VOCAB + 100]), config)


def _halves(pair: str | list[str]) -> list[str]:
    return pair.split(" ") if isinstance(pair, str) else pair


def _product(pair: str | list[str]) -> str:
    return "".join(_halves(pair))
