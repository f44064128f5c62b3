"""Programs of odd dtypes and shapes, and what an aborted prompt leaves, on tiny real exports."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import (
    CapacityError,
    ContractError,
    GenerationConfig,
    InputError,
    MultimodalRunner,
    make_embedding_input,
    make_image_input,
    make_text_input,
    make_token_input,
)
from number_tokenizer import NumberTokenizer, answer
from stateful_models import MODELS, STATEFUL, load_stateful

FOLDER = MODELS / "behaviour"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
MIB = 1 << 20
LONG = [(7 * i + 3) % 60 + 2 for i in range(20)]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def load(name: str) -> MultimodalRunner:
    return MultimodalRunner(FOLDER / f"{name}.pte", NumberTokenizer())


def test_int32_tokens_and_positions_give_the_eager_models_tokens() -> None:
    with load("int32") as runner:
        assert runner.contract.methods["forward"].inputs[0].dtype == "int32"
        for prompt, expected in EXPECTED["turns"]:
            assert answer(runner, prompt, len(expected)) == expected


@pytest.mark.parametrize("path", STATEFUL, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_aborted_prompt_leaves_no_trace(path: Path) -> None:
    first, rest = LONG[:9], [5, 9, 2, 33]
    with load_stateful(path) as fresh, load_stateful(path) as runner:
        said = answer(fresh, first, 4)
        expected = answer(fresh, rest, 6)
        stop_after = 0
        for stop_after in range(1, len(LONG) + 2):
            runner.reset()
            assert answer(runner, first, 4) == said
            position = runner.position
            calls = itertools.count(1)

            def progress(
                _done: int, _total: int, _phase: str, calls: Iterator[int] = calls, end: int = stop_after
            ) -> None:
                if next(calls) == end:
                    runner.stop()

            runner.prefill(make_token_input(LONG), progress=progress)
            if runner.position > position:  # the prompt was read before the stop came
                break
            assert answer(runner, rest, 6) == expected, f"stopped after {stop_after} calls"
        assert stop_after > 1 or runner.contract.max_chunk > len(LONG)


@pytest.mark.parametrize("path", STATEFUL, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_rewind_is_either_exact_or_refused_and_reset_forgets_all(path: Path) -> None:
    with load_stateful(path) as fresh, load_stateful(path) as runner:
        fresh.prefill(make_token_input(LONG[:12]))
        expected = answer(fresh, [4, 7], 6)
        for turns in (1, 2):
            runner.reset()
            runner.prefill(make_token_input(LONG[:12]))
            snapshot = runner.save()
            for _ in range(turns):
                answer(runner, LONG[:8], 5)
            try:
                runner.rewind(12)
            except InputError:
                if not (runner.contract.is_recurrent or runner.contract.ring_rows > 0):
                    raise
                runner.restore(snapshot)
            assert answer(runner, [4, 7], 6) == expected
        runner.reset()
        fresh.reset()
        assert answer(runner, LONG, 5) == answer(fresh, LONG, 5)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize("name", ["full_logits", "full_logits_planned"])
def test_logits_of_every_position_take_memory_for_the_chunk_in_use(name: str) -> None:
    before = resident_bytes()
    with load(name) as runner:
        assert (runner.contract.vocab_size, runner.contract.max_chunk) == (32_768, 1024)
        loaded = (resident_bytes() - before) / MIB
        # The token after t at position p is t + p; the last row is the one that counts.
        assert answer(runner, [9, 9, 100], 3) == [102, 105, 109]
        short = (resident_bytes() - before) / MIB
        runner.reset()
        assert answer(runner, [3] * 256, 1) == [258]
        long = (resident_bytes() - before) / MIB
    # 1024 rows of float32 are 128 MiB, 256 are 32 MiB; the graph keeps up to three such tensors.
    assert loaded < 8
    assert short < 16
    assert 24 < long < 160


def test_rows_of_several_tiles_in_another_dtype_reach_the_decoder_flattened() -> None:
    prompt, expected = EXPECTED["image"]
    pixels = np.linspace(0, 1, 3 * 8 * 8, dtype=np.float32).reshape(3, 8, 8)
    with load("tiles") as runner:
        assert runner.contract.methods["vision_encoder"].outputs[0].shape == (3, 4, 32)
        for dtype in (np.float16, np.float32, np.float64):
            runner.reset()
            runner.prefill(make_image_input(pixels.astype(dtype), layout="CHW"))
            assert runner.position == 12
            assert answer(runner, prompt, len(expected)) == expected
        rows = np.zeros((2, 32), np.float16)
        assert runner.prefill(make_embedding_input(rows)) > 12


def test_tiles_that_were_cut_before_go_to_an_encoder_of_tiles_by_pointer() -> None:
    prompt, expected = EXPECTED["cut_tiles"]
    tiles = np.linspace(-1, 1, 3 * 3 * 8 * 8, dtype=np.float32).reshape(3, 3, 8, 8)
    with load("cut_tiles") as runner:
        runner.prefill(make_image_input(tiles))
        assert runner.position == 3 * 4
        assert runner.stats.copied_input_bytes == 0
        assert answer(runner, prompt, len(expected)) == expected
        runner.reset()
        assert runner.prefill(make_image_input(tiles[:1])) == 4  # one tile is an image
        for wrong in (np.zeros((5, 3, 8, 8), np.float32), np.zeros((2, 3, 8, 9), np.float32)):
            with pytest.raises(InputError, match="vision_encoder expects float32"):
                runner.prefill(make_image_input(wrong))
        assert runner.position == 4
    with load("tiles") as runner, pytest.raises(InputError, match="vision_encoder expects float16"):
        runner.prefill(make_image_input(tiles))
    with pytest.raises(InputError, match="make_image_inputs takes several images"):
        make_image_input(np.zeros((2, 8, 8, 3), np.float32))


def test_floats_in_0_to_1_and_bytes_reach_an_encoder_of_bytes_alike() -> None:
    pixels = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)
    with load("tiles_bytes") as runner:
        answers = []
        for image in (pixels, pixels.astype(np.float32) / 255, (pixels / 255).astype(np.float64)):
            runner.reset()
            runner.prefill(make_image_input(image, layout="CHW"))
            answers.append(answer(runner, [5, 9, 2], 8))
        assert answers[0] == answers[1] == answers[2]
        with pytest.raises(InputError, match=r"floats in 0\.\.1"):
            runner.prefill(make_image_input(pixels.astype(np.float32), layout="CHW"))
        position = runner.position
        with pytest.raises(InputError, match="finite"):
            runner.prefill(make_image_input(np.full((3, 8, 8), np.nan, np.float32), layout="CHW"))
        assert runner.position == position


def test_a_fixed_length_and_disagreeing_sizes_are_refused_when_the_model_is_loaded() -> None:
    with pytest.raises(ContractError, match=r"forward: input 0: expected one token .* fixed shape \(1, 8\)"):
        load("fixed_length")
    with pytest.raises(ContractError, match=r"vision_encoder: expected embeddings of 32 features .*, got 33"):
        load("hidden_mismatch")


def test_a_prompt_without_room_for_an_answer_is_refused_before_anything_runs() -> None:
    with load("int32") as runner:
        answer(runner, [5, 9], 2)
        position, room = runner.position, runner.capacity - runner.position
        # The last turn's token is read first, and an answer has at least one.
        free = 20 - position
        with pytest.raises(CapacityError, match="seq_len=20") as caught:
            runner.generate(make_token_input([3] * (free - 1)), GenerationConfig(seq_len=20))
        assert (caught.value.needed, caught.value.available) == (free + 1, free)
        for read in (runner.prefill, runner.generate):
            with pytest.raises(CapacityError) as caught:
                read(make_token_input([3] * room))
            assert (caught.value.needed, caught.value.available) == (room + 1, room)
            assert runner.position == position
        # In a full context one token can still be sampled: nothing has to be kept for it.
        runner.generate(make_token_input([3] * (room - 1)), GenerationConfig(ignore_eos=True))
        assert (runner.stats.finish_reason, runner.position) == ("capacity", runner.capacity)
        assert runner.stats.num_generated_tokens == 1


class SmallTokenizer(NumberTokenizer):
    """Knows ids below 10 only, and names one that no model has."""

    vocab_size = 10
    eos_ids = frozenset({1_000_000})

    def push(self, token_id: int) -> str:
        return f" {token_id}" if token_id < self.vocab_size else ""


def test_ids_that_only_one_side_knows() -> None:
    """A tokenizer with more or fewer ids than the logits: an error when fed, no text when sampled."""
    prompt, expected = EXPECTED["turns"][0]
    with MultimodalRunner(FOLDER / "int32.pte", SmallTokenizer()) as runner:
        text = runner.generate_text(make_token_input(prompt), GenerationConfig(max_new_tokens=len(expected)))
        assert text == "".join(f" {token}" for token in expected if token < 10)
        assert runner.stats.num_generated_tokens == len(expected)
        with pytest.raises(InputError, match=r"token ids in 0\.\.63, got 64"):
            runner.prefill(make_text_input("64"))


class StartingTokenizer(NumberTokenizer):
    bos_id = 7
    adds_bos = True


def test_a_conversation_begins_with_bos_where_the_tokenizer_asks_for_it() -> None:
    path = FOLDER / "tiles.pte"
    image = make_image_input(np.zeros((3, 8, 8), np.float32), layout="CHW")
    media = [-1] * 12
    with MultimodalRunner(path, StartingTokenizer()) as runner:

        def history(prompt: list[object], config: GenerationConfig | None = None) -> list[int]:
            runner.reset()
            for part in prompt:
                runner.prefill(part, config)  # type: ignore[arg-type]
            return runner.history

        assert history(["5 6", "8"]) == [7, 5, 6, 8]
        assert history(["7 5"]) == [7, 5]
        assert history([image, "5"]) == [7, *media, 5]
        assert history([make_token_input([5])]) == [5]
        assert history(["5"], GenerationConfig(num_bos=2)) == [7, 7, 5]
    with MultimodalRunner(path, NumberTokenizer()) as runner:
        assert history([image, "5"]) == [*media, 5]


def test_ends_named_in_generation_config_beside_the_model_end_an_answer(tmp_path: Path) -> None:
    prompt, expected = EXPECTED["turns"][0]
    model = tmp_path / "model.pte"
    model.write_bytes((FOLDER / "int32.pte").read_bytes())
    third = expected.index(expected[2])
    for value in (expected[third], [63, expected[third]]):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
        with MultimodalRunner(model, NumberTokenizer()) as runner:
            assert answer(runner, prompt, len(expected)) == expected[:third]
            assert runner.stats.finish_reason == "stop"
