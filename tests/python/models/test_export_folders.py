"""Folders that transformers' own exporter writes: export.json and a program for each part of a model.

tools/fixtures/export_folders makes them; the expected tokens are those of transformers' `generate`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_mm import (
    CapacityError,
    ContractError,
    InputError,
    ModelLoadError,
    MultimodalInput,
    MultimodalModel,
    MultimodalRunner,
    Session,
    inspect_model,
    make_audio_input,
    make_image_input,
    make_token_input,
)
from executorch_mm._files.pytree_specs import read_spec
from executorch_mm.cli import main
from number_tokenizer import NumberTokenizer

FOLDERS = Path(__file__).resolve().parents[2] / "models" / "export_folders"
NAMES = sorted(path.parent.name for path in FOLDERS.glob("*/export.json"))
UNPLANNED = ["aya_vision", "llama"]


def load(name: str, **options: Any) -> MultimodalRunner:
    return MultimodalRunner(FOLDERS / name, NumberTokenizer(), **options)


def expected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDERS / name / "expected.json").read_text())
    return found


def inputs(name: str, prompt: list[Any]) -> list[MultimodalInput]:
    """Token ids, or the names of arrays in media.npz."""
    parts = []
    for part in prompt:
        if isinstance(part, str):
            array = np.load(FOLDERS / name / "media.npz")[part]
            parts.append(make_image_input(array) if array.ndim == 4 else make_audio_input(array))
        else:
            parts.append(make_token_input(part))
    return parts


def answer(runner: MultimodalRunner | Session, name: str, prompt: list[Any], count: int) -> list[int]:
    result = runner.generate_result(
        inputs(name, prompt), max_new_tokens=count, temperature=0.0, ignore_eos=True
    )
    return list(result.token_ids)


def talk(runner: MultimodalRunner, name: str) -> list[list[int]]:
    return [answer(runner, name, prompt, len(tokens)) for prompt, tokens in expected(name)["turns"]]


@pytest.mark.parametrize("name", NAMES)
def test_a_conversation_is_that_of_transformers_again_after_a_reset(name: str) -> None:
    tokens = [tokens for _, tokens in expected(name)["turns"]]
    with load(name) as runner:
        for _ in range(2):
            assert talk(runner, name) == tokens
            runner.reset()


@pytest.mark.parametrize("name", NAMES)
def test_long_prompts_and_others_give_the_tokens_of_transformers(name: str) -> None:
    with load(name) as runner:
        for prompt, tokens in expected(name)["lone"]:
            assert answer(runner, name, prompt, len(tokens)) == tokens
            runner.reset()


@pytest.mark.parametrize("old", ['"decode": {', "layers"])
def test_half_a_surrogate_in_a_name_is_a_load_error(old: str, tmp_path: Path) -> None:
    shutil.copytree(FOLDERS / "llama", tmp_path / "llama")
    file = tmp_path / "llama" / "export.json"
    text = file.read_text()
    assert old in text
    # JSON in a text in JSON: each of the two unescapes once.
    escape = "\\ud800" if old.startswith('"') else "\\\\\\\\ud800"
    file.write_text(text.replace(old, old.replace("e", escape, 1)))
    for read in (inspect_model, lambda path: MultimodalRunner(path, NumberTokenizer())):
        with pytest.raises(ModelLoadError, match=r"expected names of whole characters, got .*ud800"):
            read(tmp_path / "llama")


def prompt_calls(runner: MultimodalRunner) -> int:
    """Calls of decoders over the prompt that was read last."""
    return runner._session.timings.num_prompt_calls


@pytest.mark.parametrize("name", ["aya_vision", "llava", "voxtral"])
def test_a_prompt_is_read_in_one_call_however_many_images_it_has(name: str) -> None:
    with load(name) as runner:
        several = inputs(name, ["media0", [9, 4, 8]]) * 2
        for prompt, tokens in expected(name)["lone"]:
            assert answer(runner, name, prompt, len(tokens)) == tokens
            assert prompt_calls(runner) == 1
            runner.reset()
        runner.generate_text([*inputs(name, [[5, 6]]), *several], max_new_tokens=1)
        assert prompt_calls(runner) == 1
        runner.reset()
        (first, _), (text, _), (later, _) = expected(name)["turns"]
        # Text at a later position is decode's, the last token of the answer before it apart.
        text_calls = 1 + (len(text[0]) if runner.contract.max_chunk == 1 else 1)
        for prompt, calls in ((first, 1), (text, text_calls), (later, 1)):
            answer(runner, name, prompt, 2)
            assert prompt_calls(runner) == calls


@pytest.mark.parametrize("name", ["aya_vision", "llava", "voxtral"])
def test_a_prompt_that_is_stopped_before_its_call_leaves_nothing(name: str) -> None:
    (first, tokens), (second, others), *_ = expected(name)["turns"]
    with load(name) as runner:
        assert answer(runner, name, first, len(tokens)) == tokens
        position = runner.position
        seen: list[str] = []

        def stop(done: int, total: int, phase: str) -> None:
            seen.append(phase)
            if len(seen) == 4:
                runner.stop()

        prompt = [*inputs(name, [[8, 9], "media0", [7, 6, 5]]), *inputs(name, ["media1", [4, 3, 2]])]
        assert list(runner.stream(prompt, max_new_tokens=3, progress=stop)) == []
        assert len(seen) == 4
        assert prompt_calls(runner) == 0
        assert runner.position == position
        assert answer(runner, name, second, len(others)) == others


@pytest.mark.parametrize("name", NAMES)
def test_going_back_gives_the_same_tokens(name: str) -> None:
    (prompt, tokens), *_ = expected(name)["turns"]
    with load(name) as runner:
        runner.prefill(inputs(name, prompt))
        end = runner.position
        answer(runner, name, [[7, 8]], 3)
        runner.rewind(end - 1)
        last = [prompt[-1][-1:]]
        assert answer(runner, name, last, len(tokens)) == tokens


@pytest.mark.parametrize("name", NAMES)
def test_saved_conversations_go_on_in_memory_and_from_a_file(name: str, tmp_path: Path) -> None:
    (first, _), (second, tokens), *_ = expected(name)["turns"]
    with load(name) as runner:
        answer(runner, name, first, len(tokens))
        snapshot = runner.save(tmp_path / "state.emm")
        runner.reset()
        answer(runner, name, [[3, 4]], 2)
        runner.restore(snapshot)
        assert answer(runner, name, second, len(tokens)) == tokens
    with load(name) as another:
        another.restore(tmp_path / "state.emm")
        assert answer(another, name, second, len(tokens)) == tokens


@pytest.mark.parametrize("name", NAMES)
def test_sessions_over_one_folder_answer_as_alone_and_forks_go_their_own_way(name: str) -> None:
    turns = expected(name)["turns"]
    options = {"num_threads": 1, "prefix_cache_bytes": 0, "encoder_cache_bytes": 0}
    with MultimodalModel(FOLDERS / name, NumberTokenizer(), **options) as model:
        sessions = [model.session() for _ in range(3)]
        for prompt, tokens in turns:
            for session in sessions:  # in turn, so that each finds what another has left
                assert answer(session, name, prompt, len(tokens)) == tokens
            with sessions[0].fork() as fork:
                answer(fork, name, [[3, 4, 5]], 3)
        sessions[0].reset()
        (prompt, tokens), (second, others), *_ = turns
        assert answer(sessions[0], name, prompt, len(tokens)) == tokens
        with sessions[0].fork() as fork:
            sessions[0].close()
            saved = fork.save()
            assert answer(fork, name, second, len(others)) == others
            sessions[1].restore(saved)
            assert answer(sessions[1], name, second, len(others)) == others

        def talk_anew(session: Session) -> list[list[int]]:
            session.reset()
            return [answer(session, name, prompt, len(tokens)) for prompt, tokens in turns]

        with ThreadPoolExecutor(2) as threads:
            for told in threads.map(talk_anew, sessions[1:]):
                assert told == [tokens for _, tokens in turns]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_copies_what_inspect_says_and_nothing_where_inputs_are_not_planned(name: str) -> None:
    said = inspect_model(FOLDERS / name).copied_step_bytes
    with load(name) as runner:
        runner.prefill([make_token_input([1, 5])])
        counts = []
        for _ in range(3):
            before = runner._session.copied_input_bytes
            runner.prefill([make_token_input([9])])
            counts.append(runner._session.copied_input_bytes - before)
    if name in UNPLANNED:
        assert counts == [0, 0, 0]
        assert said == 0
    elif name == "gpt2":  # its cache grows, and is copied as it grows; what is said is the most
        assert counts[0] < counts[1] < counts[2] < said
    else:
        assert counts == [said] * 3
        assert said < 200


@pytest.mark.parametrize("name", NAMES)
def test_the_capacity_is_that_of_the_cache_and_holds_that_many(name: str) -> None:
    with load(name) as runner:
        capacity = runner.capacity
        assert capacity == 64 if name == "gpt2" else 48
        with pytest.raises(CapacityError):
            runner.prefill([make_token_input([1] * (capacity + 1))])
        runner.prefill([make_token_input([1, *[5] * (capacity - 2)])])
        assert len(answer(runner, name, [[6]], 1)) == 1
        assert runner.position == capacity


@pytest.mark.parametrize("name", NAMES)
def test_from_pretrained_takes_the_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(FOLDERS / name, folder)
    tokens = {str(i): i for i in range(64)}
    kind = {"type": "WordLevel", "vocab": tokens, "unk_token": "0"}
    content = {"version": "1.0", "added_tokens": [], "model": kind, "pre_tokenizer": {"type": "Whitespace"}}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (prompt, wanted), *_ = expected(name)["turns"]
    with MultimodalRunner.from_pretrained(folder) as runner:
        assert answer(runner, name, prompt, len(wanted)) == wanted
        assert name in repr(runner)
    if "media.npz" not in {path.name for path in folder.iterdir()}:
        assert main(["doctor", str(folder)]) == 0


def test_ends_of_the_generation_config_end_answers() -> None:
    with load("llama") as runner:
        assert runner.contract.eos_ids == [2]


def test_a_smaller_context_can_be_asked_for_and_a_larger_one_not() -> None:
    with load("llama", max_context_len=10) as runner:
        assert runner.capacity == 10
    with pytest.raises(InputError, match="expected at most 48, which decode has room for, got 49"):
        load("llama", max_context_len=49)
    with pytest.raises(InputError, match="method: expected one of decode, got prefill"):
        load("llama", method="prefill")


def test_what_folders_cannot_do_is_said() -> None:
    with pytest.raises(InputError, match="isolate: expected the path of a file, got an export folder"):
        load("llama", isolate=True)
    with pytest.raises(InputError, match="kv_cache_dtype: an export folder's programs"):
        load("llama", kv_cache_dtype="int8")
    with pytest.raises(InputError, match="data_path: an export folder keeps no weights elsewhere"):
        load("llama", data_path=FOLDERS / "llama" / "decode.pte")


def test_inspect_shows_components_capacity_and_what_is_copied(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(FOLDERS / "llama")]) == 0
    shown = capsys.readouterr().out
    assert "text model\ncontext: 48 positions, 48 a call, can rewind\n" in shown
    assert "components: prefill, decode; each step copies 0 B of inputs" in shown
    assert "problems: none found" in shown


def test_the_cache_of_a_growing_export_is_a_problem_where_inputs_are_planned() -> None:
    assert any("alloc_graph_input=False" in problem for problem in inspect_model(FOLDERS / "gpt2").problems)


Damage = Callable[[dict[str, Any]], object]


def component(manifest: dict[str, Any], name: str = "decode") -> dict[str, Any]:
    found: dict[str, Any] = manifest["components"][name]
    return found


def rename_input(manifest: dict[str, Any]) -> None:
    metadata = component(manifest)["metadata"]
    metadata["in_spec"] = metadata["in_spec"].replace("position_ids", "positions")


def drop_leaf(manifest: dict[str, Any]) -> None:
    metadata = component(manifest)["metadata"]
    spec = json.loads(metadata["in_spec"])
    keywords = spec[1]["children_spec"][1]
    keywords["children_spec"].pop(0)
    keywords["context"] = json.dumps(json.loads(keywords["context"])[1:])
    metadata["in_spec"] = json.dumps(spec)


def set_spec(spec: object) -> Damage:
    return lambda manifest: component(manifest)["metadata"].update(in_spec=spec)


BAD: dict[str, tuple[type[Exception], str, Damage]] = {
    "another version": (
        ModelLoadError,
        "expected schema_version 1, got 2",
        lambda manifest: manifest.update(schema_version=2),
    ),
    "another format": (
        ModelLoadError,
        "expected export_format 'executorch', got 'onnx'",
        lambda manifest: manifest.update(export_format="onnx"),
    ),
    "no components": (ModelLoadError, "expected components", lambda manifest: manifest.update(components=[])),
    "no decode": (
        ContractError,
        "expected a component decode, .*got prefill",
        lambda manifest: manifest["components"].pop("decode"),
    ),
    "no such file": (
        ModelLoadError,
        "component decode: the folder has no file gone.pte",
        lambda manifest: component(manifest).update(file="gone.pte"),
    ),
    "a file elsewhere": (
        ModelLoadError,
        "expected the name of a file in the folder, got '../llama/decode.pte'",
        lambda manifest: component(manifest).update(file="../llama/decode.pte"),
    ),
    "no metadata": (
        ModelLoadError,
        "component decode: expected a file and metadata",
        lambda manifest: component(manifest).pop("metadata"),
    ),
    "no spec": (
        ModelLoadError,
        "component decode: in_spec: expected a text, got NoneType",
        lambda manifest: component(manifest)["metadata"].pop("in_spec"),
    ),
    "a spec of another protocol": (ModelLoadError, "in_spec: expected .1, spec.", set_spec("[2, {}]")),
    "a spec that is no JSON": (ModelLoadError, "in_spec: expected JSON", set_spec("{")),
    "a spec too deep": (ModelLoadError, "in_spec: expected (JSON|at most)", set_spec("[1, " + "[" * 100_000)),
    "an input of another name": (
        ContractError,
        r"decode: input 2 \(positions\): expected nothing that this runner does not know",
        rename_input,
    ),
    "a spec with too few inputs": (
        ContractError,
        "decode: export.json's in_spec names 8 inputs, the program takes 9",
        drop_leaf,
    ),
    "programs changed over": (
        ContractError,
        "names .* inputs, the program takes",
        lambda manifest: component(manifest).update(file="prefill.pte"),
    ),
    "a head without a model": (
        ContractError,
        "expected a component language_model",
        lambda manifest: manifest["components"].update(lm_head=component(manifest)),
    ),
}


@pytest.fixture
def copy_of_llama(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDERS / "llama", tmp_path / "copy"))


@pytest.mark.parametrize("what", BAD)
def test_a_wrong_folder_is_refused_in_one_sentence(what: str, copy_of_llama: Path) -> None:
    error, message, damage = BAD[what]
    file = copy_of_llama / "export.json"
    manifest = json.loads(file.read_text())
    damage(manifest)
    file.write_text(json.dumps(manifest))
    with pytest.raises(error, match=message):
        MultimodalRunner(copy_of_llama, NumberTokenizer())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("export.json", "[]", "export.json: expected a JSON object, got list"),
        ("export.json", "{", "export.json: expected a JSON file"),
        ("generation_config.json", "{", "generation_config.json: expected a JSON file"),
        ("generation_config.json", '{"max_cache_len": 0}', "max_cache_len: expected 1 or more, got 0"),
        ("decode.pte", "no program", "decode.pte: "),
    ],
)
def test_a_damaged_file_of_a_folder_is_named(
    name: str, content: str, message: str, copy_of_llama: Path
) -> None:
    (copy_of_llama / name).write_text(content)
    with pytest.raises(ModelLoadError, match=message):
        MultimodalRunner(copy_of_llama, NumberTokenizer())


def test_a_cache_length_smaller_than_the_caches_is_the_capacity(copy_of_llama: Path) -> None:
    (copy_of_llama / "generation_config.json").write_text('{"max_cache_len": 20}')
    with MultimodalRunner(copy_of_llama, NumberTokenizer()) as runner:
        assert runner.capacity == 20


def test_decode_alone_reads_prompts(copy_of_llama: Path) -> None:
    file = copy_of_llama / "export.json"
    manifest = json.loads(file.read_text())
    del manifest["components"]["prefill"]
    file.write_text(json.dumps(manifest))
    (copy_of_llama / "prefill.pte").unlink()
    with MultimodalRunner(copy_of_llama, NumberTokenizer()) as runner:
        assert talk(runner, "llama") == [tokens for _, tokens in expected("llama")["turns"]]


def test_a_growing_cache_needs_prefill(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDERS / "gpt2", tmp_path / "copy"))
    manifest = json.loads((folder / "export.json").read_text())
    del manifest["components"]["prefill"]
    (folder / "export.json").write_text(json.dumps(manifest))
    with pytest.raises(ContractError, match="expected a component prefill"):
        MultimodalRunner(folder, NumberTokenizer())


def test_every_program_of_a_folder_is_checked_before_it_is_loaded(copy_of_llama: Path) -> None:
    program = bytearray((copy_of_llama / "decode.pte").read_bytes())
    del program[len(program) // 2 :]
    (copy_of_llama / "decode.pte").write_bytes(program)
    with pytest.raises(ModelLoadError, match=r"decode\.pte: "):
        MultimodalRunner(copy_of_llama, NumberTokenizer())
    with pytest.raises(ModelLoadError, match=r"decode\.pte: "):
        inspect_model(copy_of_llama)


def test_specs_name_the_leaves_of_nested_structures() -> None:
    leaf = {"type": None, "context": None, "children_spec": []}
    inner = {"type": "builtins.list", "context": "null", "children_spec": [leaf, leaf]}
    spec = {"type": "builtins.dict", "context": '["b", "a"]', "children_spec": [leaf, inner]}
    assert read_spec(json.dumps([1, spec])).leaves == ("b", "a.0", "a.1")
