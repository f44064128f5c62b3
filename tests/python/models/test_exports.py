"""Programs as users of torch.export write them: shared memory, no metadata, counters, short caches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import (
    CapacityError,
    ContractError,
    InputError,
    ModelLoadError,
    MultimodalRunner,
    inspect_model,
    make_token_input,
)
from executorch_mm._loading.methods import load_methods
from executorch_mm.speech import SpeechRunner
from number_tokenizer import NumberTokenizer

FOLDER = Path(__file__).resolve().parents[2] / "models" / "exports"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
ONE_DECODER = [name for name, expected in EXPECTED.items() if "turns" in expected]


def load(name: str, **options: object) -> MultimodalRunner:
    return MultimodalRunner(FOLDER / f"{name}.pte", NumberTokenizer(), **options)


def answer(runner: MultimodalRunner, prompt: list[int], count: int) -> list[int]:
    inputs = [make_token_input(prompt)]
    result = runner.generate_result(inputs, max_new_tokens=count, temperature=0.0, ignore_eos=True)
    return list(result.token_ids)


def talk(runner: MultimodalRunner, turns: list[list[list[int]]]) -> list[list[int]]:
    return [answer(runner, prompt, len(expected)) for prompt, expected in turns]


@pytest.mark.parametrize("name", ONE_DECODER)
def test_two_turns_are_those_of_the_eager_model_again_after_a_reset(name: str) -> None:
    turns = EXPECTED[name]["turns"]
    with load(name) as runner:
        for _ in range(2):
            assert talk(runner, turns) == [expected for _, expected in turns]
            runner.reset()


@pytest.mark.parametrize("name", [name for name in ONE_DECODER if name not in {"kept_count"}])
def test_going_back_to_a_position_gives_the_same_tokens(name: str) -> None:
    (prompt, expected), *_ = EXPECTED[name]["turns"]
    with load(name) as runner:
        answer(runner, [*prompt[:3], 1, 1], 2)
        runner.rewind(3)
        assert answer(runner, prompt[3:], len(expected)) == expected


def test_what_is_rewritten_in_each_call_is_no_state_and_what_is_added_to_is() -> None:
    for name, can_rewind in (("rewritten_count", True), ("kept_count", False)):
        assert inspect_model(FOLDER / f"{name}.pte").can_rewind == can_rewind
        with load(name) as runner:
            assert runner.contract.is_recurrent != can_rewind
            answer(runner, [5, 9, 2], 1)
            if not can_rewind:
                with pytest.raises(InputError, match="rewind: expected 0"):
                    runner.rewind(2)


def test_a_program_without_metadata_has_the_room_of_its_cache() -> None:
    report = inspect_model(FOLDER / "no_metadata.pte")
    assert (report.capacity, report.max_chunk, report.problems) == (64, 15, ())
    with load("no_metadata", max_context_len=20) as runner:
        assert runner.capacity == 20
        with pytest.raises(CapacityError):
            answer(runner, [1] * 21, 1)


@pytest.mark.parametrize("asked", [65, 1 << 40])
def test_a_context_beyond_the_cache_is_refused(asked: int) -> None:
    with pytest.raises(InputError, match=f"max_context_len: expected at most 64, .* got {asked}"):
        load("no_metadata", max_context_len=asked)


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "48", 1 << 62])
def test_a_context_that_is_no_number_of_positions_is_refused(wrong: int) -> None:
    with pytest.raises(InputError, match="max_context_len: expected 1 or more"):
        load("no_metadata", max_context_len=wrong)


@pytest.mark.parametrize("name", ["short_cache", "ring_as_flat"])
def test_the_capacity_is_what_works_whatever_the_metadata_promise(name: str) -> None:
    report = inspect_model(FOLDER / f"{name}.pte")
    assert (report.metadata["get_max_context_len"], report.capacity) == (64, EXPECTED[name]["capacity"])
    assert any("24 positions, not the 64 of get_max_context_len" in problem for problem in report.problems)
    with load(name) as runner:
        inputs = [make_token_input([5, 9])]
        result = runner.generate_result(inputs, max_new_tokens=100, temperature=0.0, ignore_eos=True)
        assert (runner.capacity, runner.position) == (24, 24)
        assert result.finish_reason == "capacity"


def test_methods_share_one_memory_of_which_inspection_tells() -> None:
    report = inspect_model(FOLDER / "shared_multimodal.pte")
    shared = 2 * 16384 * 32 * 4  # keys and values, rows, width, bytes of a float
    assert {method.shared_bytes for method in report.methods} == {shared}
    decoder, embedding = report.find("text_decoder"), report.find("token_embedding")
    assert decoder is not None
    assert embedding is not None
    assert (decoder.cache, decoder.cache_bytes, embedding.cache_bytes) == ("flat", shared, 0)
    assert all(method.shared_bytes == 0 for method in inspect_model(FOLDER / "own_adapters.pte").methods)


def run_counters(name: str) -> list[float]:
    """Sums that start at 5: 1 and 2 are added, 4 is taken away, 3 is added; and what only looks says."""
    methods, _ = load_methods(FOLDER / f"{name}.pte", num_threads=1)
    calls = [("count", 1), ("count", 2), ("back", 4), ("count", 3), ("look", 0)]
    return [float(methods.run(method, [np.full(4, x, np.float32)])[0]) for method, x in calls]


def test_what_one_method_writes_the_other_reads_where_they_share() -> None:
    assert run_counters("shared_counter") == [6, 8, 4, 7, 7]
    # A method that never changes the sum holds its start as a constant there.
    assert run_counters("own_counter") == [6, 8, 1, 11, 5]


def test_a_size_of_shared_memory_that_one_method_alone_has_is_damage(tmp_path: Path) -> None:
    data = (FOLDER / "shared_multimodal.pte").read_bytes()
    size = (2 * 16384 * 32 * 4).to_bytes(8, "little")
    assert data.count(size) >= 3
    for wrong in (1 << 40, 1 << 24):
        path = tmp_path / "model.pte"
        path.write_bytes(data.replace(size, wrong.to_bytes(8, "little"), 1))
        with pytest.raises(ModelLoadError, match="planned memory 2 has"):
            MultimodalRunner(path, NumberTokenizer())


def without_lengths(model: str, folder: Path) -> Path:
    """The same program, its constant methods under other names."""
    data = (FOLDER.parent / model).read_bytes()
    path = folder / "model.pte"
    path.write_bytes(data.replace(b"get_max_context_len", b"x" * 19).replace(b"get_max_seq_len", b"x" * 15))
    return path


def test_a_context_that_nothing_tells_is_refused_with_what_to_do_and_loads_with_it(tmp_path: Path) -> None:
    path = without_lengths("export_llm/llama_attention_sink.pte", tmp_path)
    with pytest.raises(ContractError, match=r"get_max_context_len.*constant_methods=.*max_context_len=N"):
        MultimodalRunner(path, NumberTokenizer())
    assert any("max_context_len=N" in problem for problem in inspect_model(path).problems)
    with MultimodalRunner(path, NumberTokenizer(), max_context_len=30) as runner:
        assert runner.capacity == 30
        assert len(answer(runner, [5, 9, 2], 4)) == 4


@pytest.mark.parametrize(
    ("model", "capacity"),
    [
        ("text/start.pte", 48),
        ("text/range.pte", 48),
        ("text/one_token.pte", 48),
        ("export_llm/llama.pte", 48),
        ("export_llm/lfm2.pte", 64),
        ("optimum/gemma3_window.pte", 8),
    ],
)
def test_the_rows_of_the_cache_tell_what_the_metadata_would(
    model: str, capacity: int, tmp_path: Path
) -> None:
    assert inspect_model(FOLDER.parent / model).capacity == capacity
    assert inspect_model(without_lengths(model, tmp_path)).capacity == capacity


@pytest.mark.parametrize("name", ["shared_adapters", "own_adapters"])
def test_an_adapter_is_a_method_to_choose(name: str) -> None:
    expected = EXPECTED[name]
    with load(name, method="lora_forward") as runner:
        assert (runner.methods, runner.method) == (("base_forward", "lora_forward"), "lora_forward")
        assert talk(runner, expected["lora"]) == [answer for _, answer in expected["lora"]]
        runner.reset()
        runner.use_method("base_forward")
        assert talk(runner, expected["turns"]) == [answer for _, answer in expected["turns"]]
        runner.reset()
        runner.use_method("lora_forward")
        assert talk(runner, expected["lora"]) == [answer for _, answer in expected["lora"]]


def test_a_shared_conversation_goes_on_with_another_adapter_and_keeps_what_was_read() -> None:
    (prompt, _), (second, _) = EXPECTED["shared_adapters"]["lora"]
    switched = EXPECTED["shared_adapters"]["switched"]
    with load("shared_adapters") as runner:
        for _ in range(2):  # the second time the method is loaded already
            first = answer(runner, prompt, 6)
            assert first == EXPECTED["shared_adapters"]["turns"][0][1]
            runner.use_method("lora_forward")
            assert runner.position == len(prompt) + 5
            assert answer(runner, second, 6) == switched
            runner.reset()
            runner.use_method("base_forward")


def test_a_conversation_of_its_own_stays_with_its_method() -> None:
    prompt, expected = EXPECTED["own_adapters"]["turns"][0]
    with load("own_adapters") as runner:
        answer(runner, prompt, 2)
        snapshot = runner.save()
        with pytest.raises(InputError, match=r"lora_forward has a cache of its own.*reset\(\) first"):
            runner.use_method("lora_forward")
        assert (runner.method, runner.position) == ("base_forward", len(prompt) + 1)
        runner.reset()
        runner.use_method("lora_forward")
        with pytest.raises(InputError, match=r"of the method base_forward.*use_method\(\) first"):
            runner.restore(snapshot)
        runner.use_method("base_forward")
        runner.restore(snapshot)
        runner.reset()
        assert answer(runner, prompt, len(expected)) == expected


def test_a_snapshot_of_a_shared_cache_is_good_for_each_method() -> None:
    (prompt, expected), (second, _) = EXPECTED["shared_adapters"]["turns"]
    with load("shared_adapters") as runner:
        assert answer(runner, prompt, 6) == expected
        snapshot = runner.save()
        runner.reset()
        runner.use_method("lora_forward")
        runner.restore(snapshot)
        assert answer(runner, second, 6) == EXPECTED["shared_adapters"]["switched"]


@pytest.mark.parametrize("wrong", ["no_such_method", "get_eos_ids"])
def test_a_method_that_is_no_decoder_is_refused_with_those_that_are(wrong: str) -> None:
    with pytest.raises(InputError, match=f"expected one of base_forward, lora_forward, got {wrong}"):
        load("shared_adapters", method=wrong)
    with load("shared_adapters") as runner:
        with pytest.raises(InputError, match=f"expected one of base_forward, lora_forward, got {wrong}"):
            runner.use_method(wrong)
        assert runner.method == "base_forward"


@pytest.mark.parametrize("wrong", ["", 1, b"forward"])
def test_a_method_that_is_no_name_is_refused(wrong: object) -> None:
    with pytest.raises(InputError, match="method: expected a method's name"):
        load("shared_adapters", method=wrong)


def test_prefill_and_decode_over_one_cache_are_one_decoder() -> None:
    with load("shared_prefill") as runner:
        assert (runner.method, runner.contract.step_method) == ("prefill", "decode")
        assert (runner.contract.max_chunk, runner.methods) == (15, ("decode", "prefill"))
    with load("shared_prefill", method="decode") as runner:
        assert (runner.method, runner.contract.step_method) == ("prefill", "decode")
    with load("own_prefill") as runner:
        assert (runner.method, runner.contract.step_method) == ("prefill", "")
    turns = EXPECTED["own_prefill"]["turns"]
    with load("own_prefill", method="decode") as runner:
        assert runner.contract.max_chunk == 1
        assert talk(runner, turns) == [answer for _, answer in turns]


@pytest.mark.parametrize("name", ["shared_adapters", "shared_prefill"])
def test_inspection_knows_programs_without_forward(name: str) -> None:
    report = inspect_model(FOLDER / f"{name}.pte")
    assert (report.kind, report.capacity, report.can_rewind, report.problems) == ("text", 64, True, ())


def test_a_transducer_has_no_decoders_to_choose_from() -> None:
    path = FOLDER.parent / "transducer" / "tdt.pte"
    for options in ({"method": "encoder"}, {"max_context_len": 8}):
        with pytest.raises(InputError, match="a transducer has neither"):
            SpeechRunner(path, NumberTokenizer(), **options)
