"""`executorch_mm.compat.executorch`: scripts written for ExecuTorch's runner, on this package's.

What upstream does was read off its runner (1.5.1); tests/python/compat/test_upstream_runner.py runs its own
tests.
"""

from __future__ import annotations

import json
import time
from collections import UserDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import executorch_mm
from executorch_mm import CapacityError, InputError, ModelLoadError, TokenizerError
from executorch_mm.compat.executorch import (
    Audio,
    GenerationConfig,
    Image,
    MultimodalInput,
    MultimodalRunner,
    RawAudio,
    Stats,
    TextLLMRunner,
    make_audio_input,
    make_image_input,
    make_raw_audio_input,
    make_text_input,
    make_token_input,
)
from executorch_mm.demo import make_scene, render
from executorch_mm.preprocess import ImageProcessor

HELLO = "<|user|>hello<|end|><|assistant|>"
BEFORE, AFTER = "<|user|>", "describe the picture<|end|><|assistant|>"
SEEDS = (900_000_011, 900_000_012)


def greedy(echo: bool = False, max_new_tokens: int = 60) -> GenerationConfig:
    return GenerationConfig(temperature=0, echo=echo, max_new_tokens=max_new_tokens)


def rendered(seed: int = SEEDS[0]) -> np.ndarray:
    """Bytes, (height, width, channels)."""
    return np.asarray(render(make_scene(seed)))


@pytest.fixture(scope="module")
def loaded(demo_folder: Path) -> MultimodalRunner:
    return MultimodalRunner(str(demo_folder / "model.pte"), str(demo_folder / "tokenizer.json"), None)


@pytest.fixture
def runner(loaded: MultimodalRunner) -> MultimodalRunner:
    loaded.reset()
    return loaded


@pytest.fixture(scope="module")
def loaded_text(demo_folder: Path) -> TextLLMRunner:
    return TextLLMRunner(str(demo_folder / "model.pte"), str(demo_folder / "tokenizer.json"))


@pytest.fixture
def text_runner(loaded_text: TextLLMRunner) -> TextLLMRunner:
    loaded_text.reset()
    return loaded_text


@pytest.fixture
def ours(demo_runner: executorch_mm.MultimodalRunner) -> Iterator[executorch_mm.MultimodalRunner]:
    demo_runner.reset()
    yield demo_runner
    demo_runner.reset()


def test_a_config_takes_its_fields_in_upstreams_order_and_no_others() -> None:
    config = GenerationConfig(False, 5, True, 7, 0.5, 1, 2)
    assert (config.echo, config.max_new_tokens, config.warming, config.seq_len) == (False, 5, True, 7)
    assert (config.temperature, config.num_bos, config.num_eos) == (0.5, 1, 2)
    with pytest.raises(AttributeError):
        config.top_k = 3  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        GenerationConfig(top_p=0.5)  # type: ignore[call-arg]


def test_images_and_audio_clips_come_out_as_lists() -> None:
    image = Image([0.5, 0.25], width=2, height=1, channels=1)
    assert (image.float_data, image.is_float(), image.is_uint8()) == ([0.5, 0.25], True, False)
    assert repr(image) == "<Image height=1 width=2 channels=1 dtype=float32>"
    audio = Audio([1, 2, 3, 4], batch_size=1, n_bins=2, n_frames=2)
    assert (audio.uint8_data, audio.batch_size, audio.n_bins, audio.n_frames) == ([1, 2, 3, 4], 1, 2, 2)
    assert repr(audio) == "<Audio batch_size=1 n_bins=2 n_frames=2 dtype=uint8>"
    raw = RawAudio([1, 2, 3, 4], batch_size=1, n_channels=2, n_samples=2)
    assert (raw.data, raw.batch_size, raw.n_channels, raw.n_samples) == ([1, 2, 3, 4], 1, 2, 2)
    assert repr(raw) == "<RawAudio batch_size=1 n_channels=2 n_samples=2>"
    with pytest.raises(RuntimeError, match="expected uint8"):
        _ = image.uint8_data


def test_an_input_gives_back_what_it_was_made_of_and_none_for_the_rest() -> None:
    made = {
        "text": MultimodalInput(text="hi"),
        "tokens": MultimodalInput([1, 2]),
        "image": MultimodalInput(Image([1, 2, 3], 1, 1, 3)),
        "audio": MultimodalInput(Audio([1, 2], 1, 2, 1)),
        "raw_audio": MultimodalInput(RawAudio([1, 2], 1, 1, 2)),
    }
    for kind, part in made.items():
        assert {name: getattr(part, f"is_{name}")() for name in made} == {n: n == kind for n in made}
        assert {name for name in made if getattr(part, f"get_{name}")() is not None} == {kind}
    assert made["text"].get_text() == "hi"
    assert made["tokens"].get_tokens() == [1, 2]
    image, audio, raw = (
        made["image"].get_image(),
        made["audio"].get_audio(),
        made["raw_audio"].get_raw_audio(),
    )
    assert image is not None
    assert audio is not None
    assert raw is not None
    assert (image.uint8_data, audio.uint8_data, raw.data) == ([1, 2, 3], [1, 2], [1, 2])
    assert repr(made["tokens"]) == "<MultimodalInput type=tokens>"
    assert repr(make_text_input("b" * 51)) == f'<MultimodalInput type=text content="{"b" * 50}...">'


@pytest.mark.parametrize("arguments", [{}, {"text": "a", "tokens": [1]}])
def test_an_input_is_made_of_one_value(arguments: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="expected one value"):
        MultimodalInput(**arguments)  # type: ignore[arg-type]


def test_arrays_are_copied_so_that_they_may_be_used_again() -> None:
    pixels = np.full((3, 2, 2), 7, np.uint8)
    features, samples = np.ones((1, 2, 3), np.float32), np.ones((1, 1, 3), np.uint8)
    image, audio, raw = make_image_input(pixels), make_audio_input(features), make_raw_audio_input(samples)
    for array in (pixels, features, samples):
        array[:] = 0
    assert image.get_image().uint8_data == [7] * 12  # type: ignore[union-attr]
    assert audio.get_audio().float_data == [1.0] * 6  # type: ignore[union-attr]
    assert raw.get_raw_audio().data == [1] * 3  # type: ignore[union-attr]


def test_height_first_and_channels_first_are_the_same_image() -> None:
    hwc = rendered()
    images = [make_image_input(array).get_image() for array in (hwc, hwc.transpose(2, 0, 1), hwc[np.newaxis])]
    data = [image.uint8_data for image in images if image is not None]
    assert data == [hwc.transpose(2, 0, 1).reshape(-1).tolist()] * 3


def test_generate_delivers_the_prompt_then_the_answer_then_the_stats(
    text_runner: TextLLMRunner, ours: executorch_mm.MultimodalRunner, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = ours.generate_text(HELLO, max_new_tokens=12, temperature=0.0)
    events: list[str | Stats] = []
    result = text_runner.generate(HELLO, greedy(echo=True, max_new_tokens=12), events.append, events.append)
    assert result is None
    prompt, *pieces, stats = events
    assert prompt == HELLO
    assert "".join(str(piece) for piece in pieces) == answer
    assert isinstance(stats, Stats)
    assert stats.num_prompt_tokens == len(ours.tokenizer.encode(HELLO))
    assert stats.num_generated_tokens == ours.stats.num_generated_tokens
    assert capfd.readouterr() == ("", "")


def test_stats_are_milliseconds_of_the_wall_clock(text_runner: TextLLMRunner) -> None:
    collected: list[Stats] = []
    before = time.time() * 1000
    text_runner.generate(HELLO, greedy(), None, collected.append)
    (stats,) = collected
    assert before - 5 <= stats.inference_start_ms <= stats.prompt_eval_end_ms <= stats.inference_end_ms
    assert stats.inference_end_ms <= time.time() * 1000 + 5
    assert stats.model_load_start_ms <= stats.model_load_end_ms <= stats.inference_start_ms + 1
    values = json.loads(stats.to_json_string())
    assert values["generated_tokens"] == stats.num_generated_tokens > 0
    assert values["SCALING_FACTOR_UNITS_PER_SECOND"] == stats.SCALING_FACTOR_UNITS_PER_SECOND == 1000
    stats.reset()
    assert (stats.num_prompt_tokens, stats.inference_end_ms) == (0, 0)
    assert stats.model_load_end_ms > 0
    stats.reset(all_stats=True)
    assert vars(stats) == vars(Stats())


def test_rates_of_stats_are_tokens_per_second() -> None:
    stats = Stats(
        num_prompt_tokens=10,
        num_generated_tokens=5,
        inference_start_ms=1000,
        prompt_eval_end_ms=1020,
        inference_end_ms=1100,
    )
    values = json.loads(stats.to_json_string())
    assert values["prefill_token_per_sec"] == 10 / 0.020
    assert values["decode_token_per_sec"] == 4 / 0.080  # the first token costs no step
    assert repr(stats) == "<Stats num_prompt_tokens=10 num_generated_tokens=5 tokens_per_second=50.000000>"


def test_images_between_texts_are_answered_as_by_our_own_runner(
    runner: MultimodalRunner, ours: executorch_mm.MultimodalRunner
) -> None:
    answer = ours.generate_text([BEFORE, executorch_mm.make_image_input(rendered()), AFTER], temperature=0.0)
    inputs = [make_text_input(BEFORE), make_image_input(rendered()), make_text_input(AFTER)]
    assert runner.generate_text(inputs, greedy()) == answer
    runner.reset()
    assert runner.generate_text(inputs, greedy(echo=True)) == AFTER + answer


def test_a_prefilled_prompt_is_answered_by_a_call_without_one(
    runner: MultimodalRunner, text_runner: TextLLMRunner
) -> None:
    answer = runner.generate_text([make_text_input(HELLO)], greedy())
    runner.reset()
    assert runner.prefill([make_text_input(HELLO)]) is None
    assert runner.generate_text([], greedy(echo=True)) == answer
    pieces: list[str] = []
    text_runner.prefill(HELLO, greedy())
    text_runner.generate("", greedy(echo=True), pieces.append)
    assert "".join(pieces) == answer


def test_the_conversation_goes_on_until_reset(text_runner: TextLLMRunner) -> None:
    assert text_runner.get_vocab_size() == 640  # tools/tiny_model
    positions = []
    for _ in range(2):
        text_runner.generate(HELLO, greedy(max_new_tokens=2))
        positions.append(text_runner.runner.position)
    assert positions[1] > positions[0] > 0
    text_runner.reset()
    assert text_runner.runner.position == 0


def test_stop_ends_the_answer_from_a_callback(runner: MultimodalRunner) -> None:
    pieces: list[str] = []

    def stop(piece: str) -> None:
        pieces.append(piece)
        runner.stop()

    inputs = [make_text_input(BEFORE), make_image_input(rendered()), make_text_input(AFTER)]
    runner.generate(inputs, greedy(), stop)
    assert len(pieces) == 1


def test_an_exception_of_a_callback_comes_out_as_it_is(runner: MultimodalRunner) -> None:
    def fail(_: str) -> None:
        raise ValueError("no more")

    with pytest.raises(ValueError, match=r"^no more$"):
        runner.generate([make_text_input(HELLO)], greedy(), fail)
    runner.reset()
    assert runner.generate_text([make_text_input(HELLO)], greedy(max_new_tokens=1))


@pytest.mark.parametrize("temperature", [-1.0, float("nan"), "warm"])
def test_a_failed_generation_says_so_and_why(text_runner: TextLLMRunner, temperature: float) -> None:
    with pytest.raises(InputError, match=r"^Generation failed: temperature: expected "):
        text_runner.generate(HELLO, GenerationConfig(temperature=temperature))


def test_a_prompt_that_does_not_fit_names_upstreams_words_and_the_numbers(text_runner: TextLLMRunner) -> None:
    capacity = text_runner.runner.capacity
    for call, words in ((text_runner.generate, "Generation"), (text_runner.prefill, "Prefill")):
        with pytest.raises(CapacityError, match=f"^{words} failed: .*{capacity}") as failed:
            call("<|user|>" * (capacity + 1), GenerationConfig(echo=False))
        assert failed.value.needed == capacity + 1
    text_runner.generate(HELLO, greedy())


def test_our_own_types_are_refused_with_the_names_of_the_right_ones(runner: MultimodalRunner) -> None:
    with pytest.raises(
        InputError, match=r"expected a executorch_mm\.compat.*GenerationConfig, got executorch_mm\.config"
    ):
        runner.generate([make_text_input("a")], executorch_mm.GenerationConfig())  # type: ignore[arg-type]
    ours = executorch_mm.make_text_input("b")
    with pytest.raises(InputError, match=r"input 1: .*got executorch_mm\.inputs\.MultimodalInput"):
        runner.generate([make_text_input("a"), ours], greedy())  # type: ignore[list-item]
    with pytest.raises(InputError, match="expected a list of MultimodalInput, got dict"):
        runner.generate({}, greedy())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [TextLLMRunner, MultimodalRunner])
def test_files_that_are_missing_are_named(
    tmp_path: Path, demo_folder: Path, kind: type[TextLLMRunner] | type[MultimodalRunner]
) -> None:
    nothing, what = str(tmp_path / "nothing"), "text llm" if kind is TextLLMRunner else "multimodal"
    with pytest.raises(ModelLoadError, match=f"^Failed to create {what} runner with model: {nothing}"):
        kind(nothing, str(demo_folder / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=f"^Failed to load tokenizer from: {nothing}"):
        kind(str(demo_folder / "model.pte"), nothing)


class TestProcessorOutput:
    """What transformers' processors return is a UserDict of tensors; numpy's arrays stand for them here."""

    IMAGE = 639

    @pytest.fixture(autouse=True)
    def processor(self, demo_folder: Path) -> None:
        self.prepare = ImageProcessor.from_pretrained(demo_folder)

    def prepared(self, seed: int) -> np.ndarray:
        """An image as the encoder takes it."""
        return np.asarray(self.prepare(rendered(seed)))

    def ids(self, runner: MultimodalRunner, text: str) -> list[int]:
        return runner.runner.tokenizer.encode(text)

    def output(self, runner: MultimodalRunner, *, run: int = 4, **changes: object) -> UserDict[str, object]:
        ids = [*self.ids(runner, BEFORE), *[self.IMAGE] * run, *self.ids(runner, AFTER)]
        pixels = self.prepared(SEEDS[0])[np.newaxis]
        return UserDict(
            {"input_ids": np.array([ids]), "pixel_values": pixels, "attention_mask": 1, **changes}
        )

    def test_an_image_stands_where_its_tokens_are(self, runner: MultimodalRunner) -> None:
        inputs = [make_text_input(BEFORE), make_image_input(rendered()), make_text_input(AFTER)]
        answer = runner.generate_text(inputs, greedy())
        for run in (1, 4):
            runner.reset()
            output = self.output(runner, run=run)
            assert runner.generate_text_hf(output, greedy(echo=True), self.IMAGE) == answer
        runner.reset()
        pieces: list[str] = []
        assert runner.generate_hf(self.output(runner), greedy(), self.IMAGE, pieces.append) is None
        assert "".join(pieces) == answer

    def test_two_runs_are_two_images(self, runner: MultimodalRunner) -> None:
        question = "which of the two pictures has a circle?<|end|><|assistant|>"
        parts = [make_text_input(BEFORE), *(make_image_input(rendered(seed)) for seed in SEEDS)]
        parts.insert(2, make_text_input("and"))
        answer = runner.generate_text([*parts, make_text_input(question)], greedy())
        runner.reset()
        run = [self.IMAGE] * 3
        ids = [*self.ids(runner, BEFORE), *run, *self.ids(runner, "and"), *run, *self.ids(runner, question)]
        pixels = np.stack([self.prepared(seed) for seed in SEEDS])
        output = {"input_ids": np.array(ids), "pixel_values": pixels}
        assert runner.generate_text_hf(output, greedy(), self.IMAGE) == answer

    def test_text_alone_and_lists_of_inputs_pass(self, runner: MultimodalRunner) -> None:
        answer = runner.generate_text([make_text_input(HELLO)], greedy())
        runner.reset()
        output = {"input_ids": np.array([self.ids(runner, HELLO)])}
        assert runner.generate_text_hf(output, greedy(echo=True)) == answer
        runner.reset()
        assert runner.generate_text_hf([make_text_input(HELLO)], greedy()) == answer

    def test_ids_get_no_further_bos(self, runner: MultimodalRunner) -> None:
        ids = self.ids(runner, HELLO)
        config = greedy(max_new_tokens=1)
        config.num_bos = 1
        runner.generate_text_hf({"input_ids": np.array(ids)}, config)
        assert runner.runner.history[: len(ids)] == ids

    @pytest.mark.parametrize(
        ("changes", "image", "message"),
        [
            ({"input_ids": np.zeros((2, 3), np.int64)}, 639, r"got int64 \(2, 3\)"),
            ({"input_ids": np.zeros(3, np.float32)}, 639, r"got float32 \(3,\)"),
            ({"input_ids": [1, 2]}, 639, "input_ids: expected a numpy array .* got list"),
            ({"pixel_values": np.zeros((1, 1, 3, 8, 8), np.float32)}, 639, r"got \(1, 1, 3, 8, 8\)"),
            ({"pixel_values": np.zeros((2, 3, 8, 8), np.float32)}, 639, "got 1 runs .* and 2 images"),
            ({}, None, "image_token_id: expected the id"),
            ({}, 638, "got 0 runs"),
        ],
    )
    def test_an_output_that_does_not_fit_together_is_refused(
        self, runner: MultimodalRunner, changes: dict[str, object], image: int | None, message: str
    ) -> None:
        with pytest.raises(RuntimeError, match=message):
            runner.generate_text_hf(self.output(runner, **changes), greedy(), image)
        assert runner.runner.position == 0

    def test_tokens_of_an_image_without_the_image_are_refused(self, runner: MultimodalRunner) -> None:
        output = self.output(runner)
        del output["pixel_values"]
        with pytest.raises(RuntimeError, match=r"got 1 runs .* and 0 images"):
            runner.generate_text_hf(output, greedy(), self.IMAGE)
        with pytest.raises(
            RuntimeError, match="expected 'input_ids' among the keys, got \\['pixel_values'\\]"
        ):
            runner.generate_text_hf({"pixel_values": 1}, greedy(), self.IMAGE)


def test_seq_len_bounds_prompt_and_answer_together(text_runner: TextLLMRunner) -> None:
    pieces: list[str] = []
    prompt = len(text_runner.runner.tokenizer.encode(HELLO))
    config = GenerationConfig(temperature=0, echo=False, seq_len=prompt + 3)
    text_runner.generate(HELLO, config, pieces.append)
    assert text_runner.runner.stats.num_generated_tokens <= 3


def test_token_inputs_are_used_as_they_are(
    runner: MultimodalRunner, ours: executorch_mm.MultimodalRunner
) -> None:
    ids = ours.tokenizer.encode(HELLO)
    answer = ours.generate_text(HELLO, temperature=0.0, max_new_tokens=60)
    assert runner.generate_text([make_token_input(ids)], greedy(echo=True)) == answer


def test_what_is_got_back_is_the_input() -> None:
    rgb = rendered()
    features = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    samples = np.arange(10, dtype=np.uint8).reshape(1, 1, 10)
    image = make_image_input(rgb).get_image()
    audio = make_audio_input(features).get_audio()
    raw_audio = make_raw_audio_input(samples).get_raw_audio()
    assert image is not None
    assert audio is not None
    assert raw_audio is not None
    assert make_token_input([3, 4]).get_tokens() == [3, 4]
    assert (image.channels, image.height, image.width) == (3, *rgb.shape[:2])
    assert image.uint8_data == rgb.transpose(2, 0, 1).reshape(-1).tolist()
    assert (audio.batch_size, audio.n_bins, audio.n_frames) == (1, 4, 2)
    assert audio.float_data == features.reshape(-1).tolist()
    assert (raw_audio.batch_size, raw_audio.n_channels, raw_audio.n_samples) == (1, 1, 10)
    assert raw_audio.data == raw_audio.uint8_data == list(range(10))
    pil = MultimodalInput.of(executorch_mm.make_image_input(render(make_scene(SEEDS[0])))).get_image()
    assert pil is not None
    assert pil.uint8_data == image.uint8_data


def test_constructors_take_flat_lists_and_arrays() -> None:
    image = Image(list(range(12)), 2, 2, 3)
    assert image.is_uint8()
    assert not image.is_float()
    assert image.uint8_data == list(range(12))
    np.testing.assert_array_equal(image.array, np.arange(12).reshape(3, 2, 2))
    part = MultimodalInput(image)
    assert part.is_image()
    back = part.get_image()
    assert back is not None
    assert np.shares_memory(back.array, image.array)
    floats = Image([0.5] * 12, 2, 2, 3)
    assert floats.is_float()
    assert floats.array.dtype == np.float32
    assert repr(floats) == "<Image height=2 width=2 channels=3 dtype=float32>"
    features, samples = (
        MultimodalInput(Audio([1.0, 2.0], 1, 2, 1)),
        MultimodalInput(RawAudio([1, 2], 1, 1, 2)),
    )
    # Upstream's predicates answer for one kind each, unlike ours.
    assert (features.is_audio(), features.is_raw_audio()) == (True, False)
    assert (samples.is_audio(), samples.is_raw_audio()) == (False, True)
    assert MultimodalInput("a").is_text()
    assert MultimodalInput([1]).is_tokens()
    memory = np.zeros(12, np.float32)
    assert np.shares_memory(Image(memory, 2, 2, 3).array, memory)


@pytest.mark.parametrize(
    ("data", "size", "message"),
    [
        ([1, 2, 3], (2, 2, 3), "expected numbers for the shape"),
        ([], (0, 0, 3), "expected"),
        ([300] * 12, (2, 2, 3), r"expected ints in 0\.\.255 or floats"),
        ([-1] * 12, (2, 2, 3), r"expected ints in 0\.\.255 or floats"),
        (["a"] * 12, (2, 2, 3), r"expected ints in 0\.\.255 or floats"),
        (np.zeros(12, np.int32), (2, 2, 3), "expected uint8 or floats, got int32"),
        ("text", (2, 2, 1), "expected a numpy array"),
    ],
)
def test_a_block_of_the_wrong_numbers_is_refused(
    data: object, size: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Image(data, *size)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="float_data: expected floats"):
        Image([1], 1, 1, 1).float_data  # noqa: B018
    with pytest.raises(InputError, match="uint8_data: expected uint8"):
        Image([1.5], 1, 1, 1).uint8_data  # noqa: B018


def test_an_image_of_the_wrong_number_of_channels_is_no_input() -> None:
    with pytest.raises(InputError, match="3 \\(RGB\\) or 4 \\(RGBA\\)"):
        MultimodalInput(Image([0] * 8, 2, 2, 2))


def test_a_rehearsal_is_accepted_and_answers(text_runner: TextLLMRunner) -> None:
    pieces: list[str] = []
    config = greedy(max_new_tokens=3)
    config.warming = True
    text_runner.generate(HELLO, config, pieces.append)
    assert "".join(pieces)
