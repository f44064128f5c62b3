"""Images that are cut, in chats: every tile in its place, as transformers' processors expand them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from executorch_mm import GenerationConfig, MultimodalInput, MultimodalRunner, load_tokenizer
from executorch_mm import make_image_input as image_input
from executorch_mm import make_token_input as token_input
from executorch_mm._engine.prompt_encoding import PromptEncoder
from executorch_mm.chat import ChatOptions
from executorch_mm.chat.chat import Chat
from executorch_mm.errors import ExecutorchMMError, InputError
from executorch_mm.preprocess import ImageProcessor
from executorch_mm.preprocess.tiling import SquareTiles
from golden_sources import golden_image
from tile_cases import CASES, MEDIA_TOKEN, ROWS, Case, make_tokenizer, template

TESTS = Path(__file__).parents[2]
GOLDEN = json.loads((TESTS / "data" / "chat" / "tiles.json").read_text(encoding="utf-8"))
CLASSES = {"InternVL": "GotOcr2ImageProcessor"}
MODEL = TESTS / "models" / "multimodal" / "llava_clip.pte"  # takes images of 28 x 28, gives 4 rows
SHORT = GenerationConfig(max_new_tokens=2, ignore_eos=True, logprobs=1)


def folder_of(case: Case, folder: Path) -> Path:
    (folder / "model.pte").symlink_to(MODEL)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(template(case.family), encoding="utf-8")
    name = CLASSES.get(case.family, f"{case.family}ImageProcessor")
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": name, **case.config})
    )
    return folder


def messages_of(case: Case) -> list[dict[str, Any]]:
    return case.messages([golden_image("RGB", *size) for size in case.images])


def load(name: str, folder: Path) -> MultimodalRunner:
    return MultimodalRunner.from_pretrained(folder_of(CASES[name], folder), num_threads=1)


def encoder_of(shape: tuple[int, ...], folder: Path, *, is_dynamic: bool = False) -> PromptEncoder:
    wanted = SimpleNamespace(shape=shape, dtype="float32", is_dynamic=is_dynamic)
    encoder = SimpleNamespace(values=wanted, takes_positions=False)
    contract: Any = SimpleNamespace(image_encoder=encoder, audio_encoder=None, is_joint=False)
    return PromptEncoder(contract, load_tokenizer(folder), folder, [])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("shape", [(1, 3, 28, 28), (3, 28, 28)])
def test_tokens_and_rows_are_those_of_transformers(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    case = CASES[name]
    encoder = encoder_of(shape, folder_of(case, tmp_path))
    tokenizer = load_tokenizer(tmp_path)
    media = tokenizer.token_to_id(MEDIA_TOKEN[case.family])
    contract: Any = SimpleNamespace(methods={})
    prompt = Chat([tmp_path], tokenizer, contract, encoder.cut).prompt(
        messages_of(case), None, ChatOptions(), 0
    )
    ids: list[object] = []
    for part in prompt.parts:
        ids += np.asarray(part.value).tolist() if part.is_tokens() else [media] * ROWS
    assert ids == GOLDEN[name]


@pytest.mark.parametrize("name", ["not cut", "1 x 2", "2 x 2", "InternVL, not cut"])
def test_the_context_holds_what_transformers_gives_the_model(name: str, tmp_path: Path) -> None:
    media = MEDIA_TOKEN[CASES[name].family]
    with load(name, tmp_path) as runner:
        placeholder = runner.tokenizer.token_to_id(media)
        runner.chat(messages_of(CASES[name]), SHORT)
        expected = [-1 if token == placeholder else token for token in GOLDEN[name]]
        assert runner.history[: len(expected)] == expected
        assert runner.stats.copied_input_bytes == 0


def test_each_tile_shows_its_part_of_the_image(tmp_path: Path) -> None:
    case = CASES["2 x 2"]
    with load("2 x 2", tmp_path) as runner:
        placeholder = runner.tokenizer.token_to_id("<image>")
        chat = runner.chat(messages_of(case), SHORT)
        tiles = list(ImageProcessor.from_pretrained(tmp_path)(golden_image("RGB", *case.images[0])))
        parts: list[MultimodalInput] = []
        ids: list[int] = []
        for token in GOLDEN["2 x 2"]:
            if token != placeholder:
                ids.append(token)
            elif ids:
                parts += [token_input(ids), image_input(tiles.pop(0), layout="CHW")]
                ids = []
        runner.reset()
        by_hand = runner.generate_result([*parts, token_input(ids)], SHORT)
    assert not tiles
    assert chat.token_ids == by_hand.token_ids
    assert chat.logprobs == by_hand.logprobs is not None


def test_the_next_turn_neither_prepares_nor_reads_the_image_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[object] = []
    prepare = SquareTiles.prepare
    monkeypatch.setattr(SquareTiles, "prepare", lambda *args: prepared.append(1) or prepare(*args))
    case = CASES["1 x 2"]
    with load("1 x 2", tmp_path) as runner:
        messages = messages_of(case)
        first = runner.chat(messages, SHORT)
        assert len(prepared) == 1
        assert first.stats.encode_image_ns > 0
        messages += [{"role": "assistant", "content": [{"type": "text", "text": "a"}]}]
        messages += [{"role": "user", "content": [{"type": "text", "text": "and?"}]}]
        second = runner.chat(messages, SHORT)
        assert len(prepared) == 1
        assert second.stats.encode_image_ns == 0
        fresh_length = runner.position
        runner.reset()
        fresh = runner.chat(messages, SHORT)
        assert fresh.token_ids == second.token_ids
        assert runner.position == fresh_length
        # Another image of the same size is read.
        messages[0]["content"][1]["image"] = golden_image("RGB", *case.images[0]).rotate(180)
        assert runner.chat(messages, SHORT).stats.encode_image_ns > 0


def test_an_encoder_of_several_tiles_gets_all_or_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    smol = folder_of(CASES["2 x 2"], tmp_path / "a")
    intern = folder_of(CASES["InternVL, 1 x 2 and 3 x 2"], tmp_path / "b")
    image = image_input(golden_image("RGB", 50, 60))
    with pytest.raises(InputError, match=r"one tile at a time.*got one of shape \(5, 3, 28, 28\)"):
        encoder_of((5, 3, 28, 28), smol).cut(image)
    assert encoder_of((5, 3, 28, 28), smol, is_dynamic=True).cut(image) is not None
    assert encoder_of((13, 3, 28, 28), intern).cut(image) is None


def test_what_was_prepared_before_is_not_cut(tmp_path: Path) -> None:
    encoder = encoder_of((1, 3, 28, 28), folder_of(CASES["2 x 2"], tmp_path))
    for shape in [(3, 28, 28), (5, 3, 28, 28)]:
        assert encoder.cut(image_input(np.zeros(shape, np.float32), layout="CHW")) is None


def test_a_closed_runner_says_so(tmp_path: Path) -> None:
    runner = load("1 x 2", tmp_path)
    runner.chat(messages_of(CASES["1 x 2"]), SHORT)
    runner.close()
    with pytest.raises(ExecutorchMMError, match="closed"):
        runner.chat(messages_of(CASES["1 x 2"]), SHORT)
