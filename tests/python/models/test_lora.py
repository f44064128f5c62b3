"""LoRA adapters as export_llm writes them: as methods of one program, and as .ptd files beside it.

The expected tokens are the eager model's with the adapter added to its weights
(tools/fixtures/export_llm/make_lora.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from executorch_mm import (
    InputError,
    ModelLoadError,
    MultimodalModel,
    MultimodalRunner,
    Session,
    XnnpackOptions,
    inspect_model,
    make_token_input,
)
from number_tokenizer import NumberTokenizer

FOLDER = Path(__file__).resolve().parents[2] / "models" / "lora"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())
METHODS = {"base_forward": "base", "lora_forward": "first"}


def load(name: str, *data: str, **options: Any) -> MultimodalRunner:
    paths = [FOLDER / f"{one}.ptd" for one in data]
    return MultimodalRunner(FOLDER / f"{name}.pte", NumberTokenizer(), data_path=paths, **options)


def load_model(name: str, *data: str) -> MultimodalModel:
    paths = [FOLDER / f"{one}.ptd" for one in data]
    return MultimodalModel(FOLDER / f"{name}.pte", NumberTokenizer(), data_path=paths)


def answer(runner: MultimodalRunner | Session, prompt: list[int]) -> list[int]:
    inputs = [make_token_input(prompt)]
    result = runner.generate_result(inputs, max_new_tokens=6, temperature=0.0, ignore_eos=True)
    return list(result.token_ids)


def talk(runner: MultimodalRunner, turns: list[list[list[int]]]) -> None:
    for prompt, expected in turns:
        assert answer(runner, prompt) == expected


def check(runner: MultimodalRunner, weights: str) -> None:
    for turns in (EXPECTED[weights]["turns"], [EXPECTED[weights]["long"]]):
        runner.reset()
        talk(runner, turns)


@pytest.mark.parametrize("name", ["methods", "own_methods"])
def test_each_method_of_a_multimethod_export_gives_the_tokens_of_its_weights(name: str) -> None:
    with load(name) as runner:
        assert runner.methods == ("base_forward", "lora_forward")
        assert runner.method == "base_forward"
        for method in ("base_forward", "lora_forward", "base_forward"):
            runner.reset()
            runner.use_method(method)
            check(runner, METHODS[method])
    with load(name, method="lora_forward") as runner:
        check(runner, "first")


def test_methods_that_share_their_cache_go_on_with_the_conversation() -> None:
    with load("methods") as runner:
        assert runner.contract.is_state_shared
        first, second = EXPECTED["base then first"]
        talk(runner, [first])
        runner.use_method("lora_forward")
        talk(runner, [second])
        # Back to where the first turn ended, and on with the weights that it was read with.
        runner.reset()
        runner.use_method("base_forward")
        talk(runner, EXPECTED["base"]["turns"])


def test_a_method_with_a_cache_of_its_own_wants_an_empty_conversation() -> None:
    with load("own_methods") as runner:
        assert not runner.contract.is_state_shared
        talk(runner, EXPECTED["base"]["turns"][:1])
        with pytest.raises(InputError, match="lora_forward has a cache of its own"):
            runner.use_method("lora_forward")
        talk(runner, EXPECTED["base"]["turns"][1:])


@pytest.mark.parametrize("name", ["methods", "own_methods"])
def test_sessions_over_one_load_have_a_method_each(name: str) -> None:
    with load_model(name) as model, ExitStack() as stack:
        assert model.methods == ("base_forward", "lora_forward")
        methods = [None, "lora_forward", "base_forward", "lora_forward"]
        sessions = [stack.enter_context(model.session(method=method)) for method in methods]
        assert [each.method for each in sessions] == [method or "base_forward" for method in methods]
        for turn in (0, 1):
            for session, method in zip(sessions, methods, strict=True):
                prompt, expected = EXPECTED[METHODS[method or "base_forward"]]["turns"][turn]
                assert answer(session, prompt) == expected
        with sessions[1].fork() as child:
            assert child.method == "lora_forward"
        with pytest.raises(InputError, match="expected one of base_forward, lora_forward, got forward"):
            model.session(method="forward")
        with pytest.raises(InputError, match="expected one of none: load_adapter"):
            model.session(adapter="second")


def test_sessions_over_one_load_have_an_adapter_each() -> None:
    with load_model("first", "base", "first") as model, ExitStack() as stack:
        assert model.load_adapter(FOLDER / "second.ptd", model_path=FOLDER / "second.pte") == "second"
        assert model.adapters == ("second",)
        adapters = [None, "second", None]
        sessions = [stack.enter_context(model.session(adapter=adapter)) for adapter in adapters]
        for turn in (0, 1):
            for session, adapter in zip(sessions, adapters, strict=True):
                assert session.adapter == adapter
                prompt, expected = EXPECTED[adapter or "first"]["turns"][turn]
                assert answer(session, prompt) == expected
        with sessions[1].fork() as child:
            assert child.adapter == "second"
        with pytest.raises(InputError, match="in use"):
            sessions[0].delete_adapter("second")


def with_second(**options: Any) -> MultimodalRunner:
    runner = load("first", "base", "first", **options)
    name = runner.load_adapter(FOLDER / "second.ptd", model_path=FOLDER / "second.pte")
    assert name == "second"
    return runner


@pytest.mark.parametrize("weight_cache", [False, True])
def test_adapters_are_loaded_beside_one_program_and_exchanged_between_turns(weight_cache: bool) -> None:
    with with_second(xnnpack=XnnpackOptions(weight_cache=weight_cache)) as runner:
        assert (runner.adapters, runner.adapter) == (("second",), None)
        for name in (None, "second", None, "second"):
            runner.reset()
            runner.set_adapter(name)
            assert runner.adapter == name
            check(runner, name or "first")
        runner.reset()
        runner.set_adapter(None)
        turns = EXPECTED["first then second"]
        talk(runner, turns[:1])
        runner.set_adapter("second")
        talk(runner, turns[1:])


def test_a_conversation_under_an_adapter_is_saved_rewound_and_restored() -> None:
    with with_second() as runner:
        talk(runner, EXPECTED["first then second"][:1])
        saved = runner.save()
        runner.set_adapter("second")
        talk(runner, EXPECTED["first then second"][1:])
        runner.restore(saved)
        talk(runner, EXPECTED["first then second"][1:])
        runner.set_adapter(None)
        runner.restore(saved)
        talk(runner, EXPECTED["first"]["turns"][1:])
        runner.set_adapter("second")
        runner.rewind(0)
        [prompt, expected], *_ = EXPECTED["second"]["turns"]
        answer(runner, [*prompt[:3], 1, 1])
        runner.rewind(3)
        assert answer(runner, prompt[3:]) == expected


def test_data_with_the_names_of_other_data_stand_in_for_it(tmp_path: Path) -> None:
    folder = FOLDER.parent / "external_weights"
    # Embedding and head with the signs of their last bytes' floats turned: other weights of the same names.
    content = bytearray((folder / "ends.ptd").read_bytes())
    for at in range(len(content) - 2048 + 3, len(content), 4):
        content[at] ^= 0x80
    other = tmp_path / "other.ptd"
    other.write_bytes(content)

    def answers(runner: MultimodalRunner) -> list[list[int]]:
        runner.reset()
        return [answer(runner, [5, 9, 2]), answer(runner, [8, 8])]

    model, blocks = folder / "model.pte", folder / "blocks.ptd"
    with MultimodalRunner(model, NumberTokenizer(), data_path=[blocks, other]) as runner:
        expected = answers(runner)
    with MultimodalRunner(model, NumberTokenizer(), data_path=[blocks, folder / "ends.ptd"]) as runner:
        first = answers(runner)
        assert first != expected
        assert runner.load_adapter(other) == "other"
        assert runner.load_adapter([folder / "all.ptd"], "again") == "again"
        for name in ("other", None, "again", "other"):
            runner.set_adapter(name)
            assert answers(runner) == (expected if name == "other" else first)
        assert runner.stats.copied_input_bytes == 0


def test_wrong_adapters_are_refused_and_change_nothing() -> None:
    second = FOLDER / "second.ptd"
    with with_second() as runner:
        own = {"model_path": FOLDER / "second.pte"}
        no_metadata = FOLDER.parent / "exports" / "no_metadata.pte"
        cases: list[tuple[Callable[[], object], type[Exception], str]] = [
            (lambda: runner.load_adapter(second, **own), InputError, "not in use, got second"),
            (lambda: runner.load_adapter([]), InputError, "expected a path or a list"),
            (lambda: runner.load_adapter(FOLDER / "missing.ptd"), ModelLoadError, "missing.ptd"),
            (lambda: runner.load_adapter(FOLDER / "first.pte", "x"), ModelLoadError, "first.pte"),
            (lambda: runner.load_adapter(second, "x"), InputError, "own program with model_path="),
            (
                lambda: runner.load_adapter(second, "x", model_path=FOLDER / "own_methods.pte"),
                InputError,
                "method: expected one of base_forward, lora_forward, got forward",
            ),
            (
                lambda: runner.load_adapter(second, "x", model_path=no_metadata),
                InputError,
                "takes, gives and remembers what the loaded one's does",
            ),
            (lambda: runner.set_adapter("third"), InputError, "expected one of second, got third"),
            (lambda: runner.delete_adapter("third"), InputError, "expected one of second, got third"),
            (lambda: runner.delete_adapter(None), InputError, "got None"),  # type: ignore[arg-type]
        ]
        for call, error, message in cases:
            with pytest.raises(error, match=message):
                call()
        assert runner.adapters == ("second",)
        runner.set_adapter("second")
        with pytest.raises(InputError, match="second is in use"):
            runner.delete_adapter("second")
        check(runner, "second")
        runner.reset()
        runner.set_adapter(None)
        runner.delete_adapter("second")
        assert runner.adapters == ()
        check(runner, "first")


def test_a_model_in_memory_takes_no_adapter_without_a_program() -> None:
    content = (FOLDER / "methods.pte").read_bytes()
    with MultimodalRunner(content, NumberTokenizer()) as runner:
        with pytest.raises(InputError, match="expected a model that was loaded from a file"):
            runner.load_adapter(FOLDER / "second.ptd")
        check(runner, "base")


def test_inspect_tells_which_tensors_are_outside() -> None:
    report = inspect_model(FOLDER / "first.pte")
    assert any("tensors are in a .ptd file" in problem for problem in report.problems)
