"""Gemma 4's contract: a decoder of tokens beside embeddings, encoders with masks and positions.

The model is a tiny random Gemma 4 that upstream's example exported; the expected tokens are those of
transformers' model and processor (tools/fixtures/gemma4).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_mm import (
    CapacityError,
    InputError,
    MultimodalRunner,
    inspect_model,
    make_audio_input,
    make_embedding_input,
    make_image_input,
    make_patch_input,
    make_raw_audio_input,
    make_token_input,
)
from executorch_mm.inputs import MultimodalInput
from executorch_mm.preprocess import FrameConfig, ImageProcessor
from golden_sources import RATE, golden_audio, golden_image
from number_tokenizer import NumberTokenizer

FOLDER = Path(__file__).resolve().parents[2] / "models" / "gemma4"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())
OTHER: dict[str, Any] = json.loads((FOLDER.parent / "exports" / "other_contract.json").read_text())
IMAGE_ID, AUDIO_ID = 7, 10
GREEDY: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}


@pytest.fixture(scope="module")
def gemma() -> MultimodalRunner:
    return MultimodalRunner(FOLDER / "model.pte")


@pytest.fixture
def runner(gemma: MultimodalRunner) -> MultimodalRunner:
    gemma.reset()
    return gemma


def other(**options: Any) -> MultimodalRunner:
    return MultimodalRunner(FOLDER.parent / "exports" / "other_contract.pte", NumberTokenizer(), **options)


def messages(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def media(part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] == "image":
            return {"type": "image", "image": golden_image(*part["source"])}
        if part["type"] == "audio":
            heard = make_audio_input(golden_audio(part["source"]), sampling_rate=RATE)
            return {"type": "audio", "audio": heard}
        return part

    return [{"role": "user", "content": [media(part) for part in content]}]


def around(name: str, media: MultimodalInput) -> list[MultimodalInput]:
    """The prompt of a case as token ids, with an input in place of its placeholders."""
    ids = EXPECTED[name]["prompt"]
    places = [i for i, token in enumerate(ids) if token in (IMAGE_ID, AUDIO_ID)]
    before, after = ids[: places[0]], ids[places[-1] + 1 :]
    return [make_token_input(before), media, make_token_input(after)]


def number_of_placeholders(name: str) -> int:
    return sum(token in (IMAGE_ID, AUDIO_ID) for token in EXPECTED[name]["prompt"])


def answer(runner: MultimodalRunner, inputs: list[MultimodalInput], count: int = 8) -> list[int]:
    return list(runner.generate_result(inputs, max_new_tokens=count, **GREEDY).token_ids)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_chat_gives_the_tokens_of_transformers(runner: MultimodalRunner, name: str) -> None:
    case = EXPECTED[name]
    result = runner.chat(messages(case["content"]), max_new_tokens=8, **GREEDY)
    assert list(result.token_ids) == case["answer"]
    # As many positions as the processor has put placeholders; the last token is pending.
    assert runner.position == len(case["prompt"]) + 7
    history = runner.history[: len(case["prompt"])]
    assert history == [-1 if token in (IMAGE_ID, AUDIO_ID) else token for token in case["prompt"]]


def test_the_contract_tells_where_ids_and_embeddings_go(runner: MultimodalRunner) -> None:
    contract = runner.contract
    assert contract.is_multimodal
    assert contract.is_joint
    assert contract.placeholder_ids == [IMAGE_ID, AUDIO_ID]
    assert (contract.hidden_size, contract.vocab_size, contract.position_style) == (32, 55, "range")
    # There are no constant methods: the room is that of the caches.
    assert contract.metadata == {}
    assert (contract.capacity, contract.max_chunk) == (160, 159)
    report = inspect_model(FOLDER / "model.pte")
    assert (report.kind, report.can_rewind, report.problems) == ("multimodal", True, ())


def test_a_second_of_audio_takes_25_positions(runner: MultimodalRunner) -> None:
    assert number_of_placeholders("audio") == 25
    runner.prefill([make_audio_input(golden_audio("sweep 1"), sampling_rate=RATE)])
    assert runner.position == 25


def test_features_with_a_mask_give_the_tokens_of_the_clip(runner: MultimodalRunner) -> None:
    frames = FrameConfig().frames(golden_audio("sweep 1"))
    padded = np.concatenate([frames, np.full((21, 128), 3.0, np.float32)])
    mask = np.arange(120) < len(frames)
    for features, given in ((frames, None), (padded, mask), (padded, mask.astype(np.int64))):
        runner.reset()
        clip = make_audio_input(features[np.newaxis], mask=given)
        assert answer(runner, around("audio", clip)) == EXPECTED["audio"]["answer"]


def test_raw_audio_goes_through_the_programs_own_transform(runner: MultimodalRunner) -> None:
    clip = make_raw_audio_input(golden_audio("sweep 1")[np.newaxis, np.newaxis])
    assert answer(runner, around("audio", clip)) == EXPECTED["audio"]["answer"]


def test_patches_with_and_without_padding_give_the_tokens_of_the_image(runner: MultimodalRunner) -> None:
    prepared = ImageProcessor.from_pretrained(FOLDER).prepare(golden_image("RGB", 61, 37))
    assert prepared.positions is not None
    patches, positions = prepared.pixel_values, prepared.positions
    missing = 630 - len(patches)
    padded = np.pad(patches, ((0, missing), (0, 0)))[np.newaxis]
    places = np.pad(positions, ((0, missing), (0, 0)), constant_values=-1)[np.newaxis]
    for image in (make_patch_input(patches, positions), make_patch_input(padded, places.astype(np.int32))):
        runner.reset()
        assert answer(runner, around("image", image)) == EXPECTED["image"]["answer"]


def test_a_conversation_is_taken_back_and_goes_on(runner: MultimodalRunner) -> None:
    case = EXPECTED["image"]
    inputs = around("image", make_image_input(golden_image("RGB", 61, 37)))
    runner.prefill([*inputs[:2], make_token_input([20, 21, 22])])
    runner.rewind(runner.position - 3)
    assert answer(runner, inputs[2:]) == case["answer"]
    saved = runner.save()
    text = [make_token_input(EXPECTED["text"]["prompt"])]
    second = answer(runner, text)
    runner.restore(saved)
    assert answer(runner, text) == second
    runner.reset()
    assert answer(runner, text) == EXPECTED["text"]["answer"]


def test_the_ids_of_config_json_are_used_only_where_the_decoder_reads_embeddings(tmp_path: Path) -> None:
    for name in ("model.pte", "tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        shutil.copy(FOLDER / name, tmp_path / name)
    image = make_image_input(golden_image("RGB", 61, 37))
    for ids in ({}, {"image_token_id": AUDIO_ID}, {"image_token_id": 20}):
        (tmp_path / "config.json").write_text(json.dumps(ids))
        with MultimodalRunner(tmp_path / "model.pte") as runner:
            assert answer(runner, around("image", image)) == EXPECTED["image"]["answer"]


def test_bad_media_are_refused_and_the_conversation_stays(runner: MultimodalRunner) -> None:
    runner.prefill([make_token_input(EXPECTED["text"]["prompt"][:5])])
    patches, places = np.zeros((9, 768), np.float32), np.zeros((9, 2), np.int64)
    frames = np.zeros((1, 99, 128), np.float32)
    cases = [
        (make_patch_input(np.full_like(patches, np.nan), places), "expected finite values"),
        (make_patch_input(patches[:, :767], places), r"expects float32 \(1, 630, 768\)"),
        (make_patch_input(patches, places - 2), "position ids of -1 or more, got -2"),
        (make_patch_input(patches, places - 1), "patches that are no padding, got none"),
        (
            make_patch_input(np.zeros((631, 768), np.float32), np.zeros((631, 2), np.int64)),
            "takes at most 630 patches, got 631",
        ),
        (make_audio_input(frames, mask=np.zeros(99, bool)), "frames that are no padding, got none"),
        (make_audio_input(np.zeros((1, 3000, 128), np.float32)), "takes at most 2999 frames, got 3000"),
        (make_audio_input(np.zeros((1, 128, 99), np.float32)), "audio_encoder expects"),
        (make_audio_input(np.zeros(16000 * 31, np.float32), sampling_rate=RATE), "161 to 480000 samples"),
        (make_audio_input(np.zeros(100, np.float32), sampling_rate=RATE), "161 to 480000 samples"),
        (make_raw_audio_input(np.zeros((2, 1, 1000), np.float32)), "expected one clip"),
        (make_raw_audio_input(np.full((1, 1, 1000), np.inf, np.float32)), "expected finite values"),
        (make_embedding_input(np.zeros((2, 31), np.float32)), r"expected floats \(tokens, 32\)"),
    ]
    for media, message in cases:
        with pytest.raises(InputError, match=message):
            runner.generate_result([media], max_new_tokens=1)
        assert runner.position == 5
    clip = make_audio_input(golden_audio("noise 2.13"), sampling_rate=RATE)
    with pytest.raises(CapacityError):
        runner.generate_result([clip] * 3, max_new_tokens=1)
    rest = [make_token_input(EXPECTED["text"]["prompt"][5:])]
    assert answer(runner, rest) == EXPECTED["text"]["answer"]


def test_inputs_that_do_not_belong_together_are_refused() -> None:
    patches = np.zeros((4, 6), np.float32)
    with pytest.raises(InputError, match=r"positions: expected ints \(4, 2\), got int64 \(3, 2\)"):
        make_patch_input(patches, np.zeros((3, 2), np.int64))
    with pytest.raises(InputError, match=r"positions: expected ints"):
        make_patch_input(patches, np.zeros((4, 2), np.float32))
    with pytest.raises(InputError, match=r"patches: expected floats \(num_patches, values\), got int64"):
        make_patch_input(patches.astype(np.int64), np.zeros((4, 2), np.int64))
    with pytest.raises(InputError, match=r"mask: expected bools or ints \(7,\), got bool \(6,\)"):
        make_audio_input(np.zeros((1, 7, 5), np.float32), mask=np.ones(6, bool))
    with pytest.raises(InputError, match="mask: expected none beside an audio clip"):
        make_audio_input(np.zeros(800, np.float32), sampling_rate=RATE, mask=np.ones(6, bool))


@pytest.mark.parametrize("name", OTHER["cases"])
def test_another_order_of_inputs_and_other_names_are_the_same_contract(name: str) -> None:
    case, prompt = OTHER["cases"][name], OTHER["prompt"]
    media = []
    if name == "image":
        media = [make_patch_input(np.array(case["patches"], np.float32), np.array(case["positions"]))]
    if name == "audio":
        media = [make_audio_input(np.array([case["features"]], np.float32))]
    with other() as runner:
        assert runner.contract.is_joint
        assert runner.contract.placeholder_ids == [40, 41]  # of constant methods
        for _ in range(2):
            inputs = [make_token_input(prompt[:2]), *media, make_token_input(prompt[2:])]
            assert answer(runner, inputs, 6) == case["answer"]
            assert runner.position == case["positions_used"] + 5
            runner.reset()


def test_an_image_without_a_processor_is_refused_with_what_is_wanted() -> None:
    with other() as runner:
        with pytest.raises(InputError, match=r"give the patches with make_patch_input: floats \(9, 6\)"):
            runner.generate_result([make_image_input(golden_image("RGB", 8, 8))], max_new_tokens=1)
        runner.warmup()
        assert runner.position == 0


def test_patches_are_refused_by_an_encoder_of_whole_images() -> None:
    folder = FOLDER.parent / "multimodal"
    patches = make_patch_input(np.zeros((4, 6), np.float32), np.zeros((4, 2), np.int64))
    with (
        MultimodalRunner(folder / "llava.pte", NumberTokenizer()) as runner,
        pytest.raises(InputError, match="takes no patches"),
    ):
        runner.generate_result([patches], max_new_tokens=1)


def test_a_rehearsal_runs_every_method_and_leaves_no_trace(runner: MultimodalRunner) -> None:
    runner.warmup()
    assert runner.position == 0
    assert answer(runner, [make_token_input(EXPECTED["text"]["prompt"])]) == EXPECTED["text"]["answer"]
