"""Programs without a KV cache in the graph (kvcache::update_and_attend): the runner keeps it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from executorch_mm import (
    CapacityError,
    ContractError,
    InputError,
    MultimodalRunner,
    StateFileError,
    inspect_model,
    make_token_input,
)
from number_tokenizer import NumberTokenizer

FOLDER = Path(__file__).resolve().parents[2] / "models" / "kvcache"
# Made by tools/fixtures/kvcache/make_models.py with torch, over a cache of torch tensors.
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
PROMPT, ANSWER = EXPECTED["flat"]["turns"][0]
DTYPES = ("float32", "float16", "bfloat16", "int8")


def load(name: str, **options: object) -> MultimodalRunner:
    if name == "no_metadata":
        options = {"max_context_len": 64, **options}
    return MultimodalRunner(FOLDER / f"{name}.pte", NumberTokenizer(), **options)


def answer(runner: MultimodalRunner, prompt: list[int], count: int = 6) -> list[int]:
    inputs = [make_token_input(prompt)]
    result = runner.generate_result(inputs, max_new_tokens=count, temperature=0.0, ignore_eos=True)
    return list(result.token_ids)


@pytest.mark.parametrize("name", EXPECTED)
def test_two_turns_are_those_of_torch_again_after_a_reset(name: str) -> None:
    with load(name) as runner:
        assert runner.contract.has_outer_cache
        assert len(PROMPT) > runner.contract.max_chunk
        for _ in range(2):
            for prompt, expected in EXPECTED[name]["turns"]:
                assert answer(runner, prompt) == expected
            runner.reset()


@pytest.mark.parametrize("name", EXPECTED)
def test_going_back_gives_the_same_tokens(name: str) -> None:
    prompt, expected = EXPECTED[name]["turns"][0]
    with load(name) as runner:
        answer(runner, [*prompt[:9], 1, 1], 2)
        runner.rewind(9)
        assert answer(runner, prompt[9:]) == expected


@pytest.mark.parametrize("name", ["flat", "ring"])
def test_a_snapshot_comes_back_whatever_was_read_meanwhile(name: str) -> None:
    (prompt, expected), (second, expected_second) = EXPECTED[name]["turns"]
    with load(name) as runner:
        assert answer(runner, prompt) == expected
        saved = runner.save()
        for _ in range(3):
            answer(runner, [4, 4, 4, 60], 20)
            runner.restore(saved)
            assert answer(runner, second) == expected_second
            runner.restore(saved)
        assert saved.nbytes > 16 * 2 * 2 * 16 * 4


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["flat", "ring"])
def test_a_file_goes_on_where_the_conversation_was(name: str, dtype: str, tmp_path: Path) -> None:
    (prompt, _), (second, _) = EXPECTED[name]["turns"]
    with load(name, kv_cache_dtype=dtype) as runner:
        answer(runner, prompt)
        runner.rewind(14)
        runner.save(tmp_path / "chat.emm")
        expected = answer(runner, second, 12)
    with load(name, kv_cache_dtype=dtype) as other:
        other.restore(tmp_path / "chat.emm")
        assert other.position == 14
        assert answer(other, second, 12) == expected


def test_a_file_of_rows_of_another_dtype_is_refused(tmp_path: Path) -> None:
    with load("flat") as runner:
        answer(runner, PROMPT)
        runner.save(tmp_path / "chat.emm")
    with load("flat", kv_cache_dtype="int8") as other:
        with pytest.raises(StateFileError):
            other.restore(tmp_path / "chat.emm")
        assert answer(other, PROMPT[:3], 1)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_rows_of_fewer_bits_take_less_room_and_decide_nearly_alike(dtype: str) -> None:
    with load("flat") as exact, load("flat", kv_cache_dtype=dtype) as runner:
        results = [
            each.generate_result([make_token_input(PROMPT)], max_new_tokens=1, temperature=0.0, logprobs=0)
            for each in (exact, runner)
        ]
        (expected,), (found,) = (result.logprobs for result in results)
        assert found == pytest.approx(expected, abs=0.05)
        assert runner.save().nbytes < 0.75 * exact.save().nbytes


def test_a_full_cache_is_an_error_and_the_conversation_goes_on() -> None:
    with load("flat", max_context_len=20) as runner:
        assert runner.capacity == 20
        assert answer(runner, PROMPT) == ANSWER
        with pytest.raises(CapacityError):
            answer(runner, [1] * 12, 1)
        runner.rewind(len(PROMPT))
        assert runner.position == len(PROMPT)
        assert len(answer(runner, [3], 3)) == 3


def test_more_context_than_the_program_names_is_there_for_the_asking() -> None:
    with load("flat", max_context_len=200) as runner:
        assert runner.capacity == 200
        assert answer(runner, PROMPT) == ANSWER
        assert len(answer(runner, [7] * 90, 60)) == 60


def test_without_metadata_the_room_must_be_named() -> None:
    with pytest.raises(ContractError, match=r"get_max_context_len.*max_context_len=N"):
        MultimodalRunner(FOLDER / "no_metadata.pte", NumberTokenizer())


def test_a_ring_goes_back_as_far_as_it_says() -> None:
    with load("ring") as runner:
        answer(runner, PROMPT, 30)
        lowest = runner.position - 8
        with pytest.raises(InputError, match=f"or a position in {lowest}"):
            runner.rewind(lowest - 1)
        runner.rewind(lowest)
        assert len(answer(runner, [5], 3)) == 3


def test_adapters_go_on_over_one_cache() -> None:
    turns = EXPECTED["adapters"]["lora_forward"]
    with load("adapters", method="lora_forward") as runner:
        assert [answer(runner, prompt) for prompt, _ in turns] == [expected for _, expected in turns]
        position = runner.position
        runner.use_method("base_forward")
        assert runner.position == position
        runner.reset()
        assert answer(runner, PROMPT) == ANSWER


def test_two_runners_in_a_process_have_a_cache_each() -> None:
    with load("flat") as one, load("ring") as other:
        turns = {one: [], other: []}
        for runner in (one, other, one, other):
            name = "flat" if runner is one else "ring"
            prompt, expected = EXPECTED[name]["turns"][len(turns[runner])]
            turns[runner].append(answer(runner, prompt))
            assert turns[runner][-1] == expected


@pytest.mark.parametrize("wrong", ["int4", "", 8])
def test_a_wrong_dtype_of_rows_is_refused(wrong: object) -> None:
    with pytest.raises(InputError, match="kv_cache_dtype: expected 'float32', 'float16'"):
        load("flat", kv_cache_dtype=wrong)


def test_a_program_with_a_cache_of_its_own_has_no_choice_of_rows() -> None:
    exports = FOLDER.parent / "exports"
    with pytest.raises(InputError, match="kv_cache_dtype: forward has its cache in the graph"):
        MultimodalRunner(exports / "short_cache.pte", NumberTokenizer(), kv_cache_dtype="int8")


def test_inspection_says_where_the_cache_is(tmp_path: Path) -> None:
    report = inspect_model(shutil.copy(FOLDER / "flat.pte", tmp_path))
    assert report.find("forward").cache == "outer"
    assert (report.capacity, report.max_chunk, report.can_rewind) == (64, 8, True)
    assert not any("KV cache" in problem for problem in report.problems)
    assert not inspect_model(FOLDER / "ring.pte").can_rewind
