"""What error messages advise exists where they say so, and helps.

The strings of the package are read from its sources: options written as `name=`, flags as `--name`,
attributes as `Class.name` and calls as `name(`. Each is looked up in the signatures and parsers. What users
meet most is followed: an error is provoked, its advice is taken, and the same call goes through.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import inspect
import io
import re
import shutil
import typing
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import executorch_mm
from executorch_mm import (
    ContractError,
    EmbeddingModel,
    InputError,
    MediaLimits,
    ModelLoadError,
    MultimodalRunner,
    Seq2SeqRunner,
    SpeechRunner,
    TokenizerError,
    load_tokenizer,
    make_audio_input,
    make_image_input,
    make_image_inputs,
    media_limits,
    preprocess,
    set_media_limits,
)
from executorch_mm._loading.options import LoadOptions, ModelOptions
from executorch_mm.chat import ChatOptions
from executorch_mm.cli import build_parser
from executorch_mm.config import GenerationOptions

PACKAGE = Path(executorch_mm.__file__).parent
MODELS = Path(__file__).resolve().parents[2] / "models"
MESSAGES = [{"role": "user", "content": "how many shapes are there?"}]

# Of other programs and libraries, as the messages say; a new one is checked by hand and added.
FOREIGN_FLAGS = {"--force-reinstall", "--no-deps", "--upgrade", "--recipe"}  # pip install, optimum-cli
# ExecuTorch, transformers' exporter, Pillow, pydantic
FOREIGN_CALLS = {"XnnpackPartitioner", "ExecutorchConfig", "load", "model_json_schema"}
FOREIGN_NAMES = {"partitioner", "enabled", "executorch", "executorch_mm", "style"}  # exporters, pip, HTML
FOREIGN_NAMES |= {
    "backend",
    "alloc_graph_input",
    "alloc_graph_output",
}  # ExecutorchConfig of transformers
# Methods that only show an object, or write what another program reads.
NO_ADVICE = {"__repr__", "__str__", "_repr_html_", "_shown"}
NO_ADVICE_IN = {"cli/completion.py", "cli/bench/svg.py", "compat", "demo", "_pyinstaller"}


class Text(typing.NamedTuple):
    """A string of the sources."""

    place: str
    text: str


def strings(tree: ast.AST, place: str) -> Iterator[Text]:
    """Strings but docstrings and those of `NO_ADVICE`; what is filled in stands as {}."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in NO_ADVICE:
            continue
        if isinstance(node, ast.JoinedStr):
            pieces = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield Text(f"{place}:{node.lineno}", "".join(map(str, pieces)))
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(f"{place}:{node.lineno}", node.value)
        yield from strings(node, place)


def texts() -> list[Text]:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        if name not in NO_ADVICE_IN and name.split("/")[0] not in NO_ADVICE_IN:
            found += strings(ast.parse(file.read_text(encoding="utf-8")), name)
    # Prose has blanks; one word alone is a name, a key or a pattern.
    return [text for text in found if " " in text.text.strip()]


def public_classes() -> dict[str, type]:
    places = (executorch_mm, preprocess, executorch_mm.chat)
    return {
        name: value
        for place in places
        for name in place.__all__
        if inspect.isclass(value := getattr(place, name))
    }


def parameters(function: Callable[..., object]) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a class of the core, which is not made by users
        return set()


def options_by_class() -> dict[str, set[str]]:
    """Names that may be written before a = in a call of the class or of its methods."""
    names = {}
    for name, value in public_classes().items():
        names[name] = parameters(value)
        if dataclasses.is_dataclass(value):
            names[name] |= {field.name for field in dataclasses.fields(value)}
        for _, method in inspect.getmembers(value, inspect.isroutine):
            if str(getattr(method, "__module__", "")).startswith("executorch_mm"):
                names[name] |= parameters(method)
    return names


def public_functions() -> dict[str, Callable[..., object]]:
    return {
        name: value
        for place in (executorch_mm, preprocess)
        for name in place.__all__
        if inspect.isfunction(value := getattr(place, name))
    }


def all_options() -> set[str]:
    names = {name for each in options_by_class().values() for name in each}
    for function in public_functions().values():
        names |= parameters(function)
    for options in (GenerationOptions, LoadOptions, ModelOptions):
        names |= options.__required_keys__ | options.__optional_keys__
    return names | {"chat_options"}


def all_flags() -> set[str]:
    def flags(parser: argparse.ArgumentParser) -> Iterator[str]:
        for action in parser._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for below in action.choices.values():
                    yield from flags(below)

    return set(flags(build_parser()))


@functools.cache
def known() -> tuple[dict[str, type], dict[str, set[str]], set[str], set[str], set[str]]:
    """Classes, options by class, names that can be called, options, flags."""
    classes = public_classes()
    methods = {name for value in classes.values() for name in dir(value)}
    callables = {*classes, *public_functions(), *methods, *FOREIGN_CALLS}
    return classes, options_by_class(), callables, all_options() | FOREIGN_NAMES, all_flags() | FOREIGN_FLAGS


def unknown(text: str) -> list[str]:
    """What a text names that is nowhere."""
    classes, by_class, callables, options, flags = known()
    wrong = [f"{n}=" for n in re.findall(r"(?<![\w.{\-=])([a-z]\w*)=(?![={])", text) if n not in options]
    wrong += [
        f"{owner}({name}="
        for owner, name in re.findall(r"\b([A-Z]\w+)\((\w+)=", text)
        if owner not in FOREIGN_CALLS and name not in by_class.get(owner, set())
    ]
    wrong += [flag for flag in re.findall(r"(?<![\w\-])--[a-z][a-z\-]*", text) if flag not in flags]
    wrong += [
        f"{owner}.{name}"
        for owner, name in re.findall(r"\b([A-Z][a-z]\w*)\.([a-z]\w*)", text)
        if owner in classes and not hasattr(classes[owner], name)
    ]
    called = re.findall(r"(?<![\w.])(\w+)\((?=\)|\w+=|[A-Z])", text)
    return wrong + [f"{name}(" for name in called if name not in callables]


def test_what_messages_name_exists_where_they_say() -> None:
    found = texts()
    assert len(found) > 500
    wrong = [f"{text.place}: {name} in {text.text!r}" for text in found for name in unknown(text.text)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("or give chat_template=", ["chat_template="]),
        ("ChatOptions(templates=...) has it", ["templates=", "ChatOptions(templates="]),
        ("ChatOptions(num_threads=...) has it", ["ChatOptions(num_threads="]),
        ("name it with --tokenizer-file", ["--tokenizer-file"]),
        ("see MultimodalRunner.use_decoder", ["MultimodalRunner.use_decoder"]),
        ("use_decoder() first", ["use_decoder("]),
        ("set_media_limits(MediaLimits(image_pixels=...)), or --model, use_method()", []),
    ],
)
def test_a_name_that_is_nowhere_is_found(text: str, names: list[str]) -> None:
    assert unknown(text) == names


# --- advice that is followed


def message_of(call: Callable[[], object], kind: type[Exception] = InputError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def wav(rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as clip:
        clip.setparams((1, 2, rate, 0, "NONE", ""))
        clip.writeframes(np.zeros(rate // 10, np.int16).tobytes())
    return file.getvalue()


def test_a_model_without_a_chat_template_takes_one(tmp_path: Path, demo_folder: Path) -> None:
    for name in ("model.pte", "tokenizer.json"):
        shutil.copy(demo_folder / name, tmp_path)
    with MultimodalRunner(tmp_path / "model.pte") as runner:
        advice = message_of(lambda: runner.chat(MESSAGES, max_new_tokens=1))
        assert "chat_options=ChatOptions(template=...)" in advice
        source = "<|user|>{{ messages[0].content }}<|end|><|assistant|>"
        assert runner.chat(MESSAGES, max_new_tokens=1, chat_options=ChatOptions(template=source)).token_ids


def test_one_of_several_chat_templates_is_named(tmp_path: Path, demo_folder: Path) -> None:
    for name in ("model.pte", "tokenizer.json"):
        shutil.copy(demo_folder / name, tmp_path)
    (tmp_path / "additional_chat_templates").mkdir()
    for name in ("long", "short"):
        source = "<|user|>{{ messages[0].content }}<|end|><|assistant|>"
        (tmp_path / "additional_chat_templates" / f"{name}.jinja").write_text(source)
    with MultimodalRunner(tmp_path / "model.pte") as runner:
        advice = message_of(lambda: runner.chat(MESSAGES, max_new_tokens=1))
        assert "ChatOptions(template=...)" in advice
        assert advice.endswith("long, short")
        assert runner.chat(MESSAGES, max_new_tokens=1, chat_options=ChatOptions(template="short")).token_ids


def test_control_tokens_in_messages_are_let_through(demo_folder: Path) -> None:
    class Own:
        """A tokenizer that has no way to spell a control token as text."""

        def __init__(self) -> None:
            self._inner = load_tokenizer(demo_folder)

        def encode_parts(self, parts: list[str | int], plain: frozenset[str]) -> list[int]:
            if plain:
                raise TokenizerError("<|end|> cannot be text")
            return self._inner.encode_parts(parts, plain)  # type: ignore[attr-defined, no-any-return]

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

    spelled = [{"role": "user", "content": "<|end|>"}]
    with MultimodalRunner(demo_folder / "model.pte", Own()) as runner:  # type: ignore[arg-type]
        advice = message_of(lambda: runner.chat(spelled, max_new_tokens=1))
        assert "ChatOptions(special_tokens_in_text=True)" in advice
        allowed = ChatOptions(special_tokens_in_text=True)
        assert runner.chat(spelled, max_new_tokens=1, chat_options=allowed).token_ids


def test_a_url_is_fetched_by_the_function_that_is_asked_for() -> None:
    assert "give fetch=" in message_of(lambda: make_audio_input("https://a.example/clip.wav"))
    assert make_audio_input("https://a.example/clip.wav", fetch=lambda _: wav()).is_audio()


def test_samples_get_their_sampling_rate(tmp_path: Path) -> None:
    make = preprocess.AudioProcessor(preprocess.LogMelConfig(bins=80))
    assert "needs sampling_rate=" in message_of(lambda: make(np.zeros(1600, np.float32)))
    assert make(np.zeros(1600, np.float32), sampling_rate=16_000).shape == (1, 80, 3000)


@pytest.mark.parametrize(
    ("limits", "advice", "call"),
    [
        (MediaLimits(image_pixels=5), "image_pixels", lambda: make_image_input(png())),
        (MediaLimits(image_edge=1), "image_edge", lambda: make_image_input(png())),
        (MediaLimits(audio_samples=9), "audio_samples", lambda: make_audio_input(wav())),
        (MediaLimits(file_bytes=9), "file_bytes", lambda: make_audio_input(wav())),
        (MediaLimits(min_sampling_rate=20_000), "min_sampling_rate", lambda: make_audio_input(wav())),
    ],
)
def test_a_limit_is_changed_as_the_message_says(
    limits: MediaLimits, advice: str, call: Callable[[], object]
) -> None:
    before = set_media_limits(limits)
    try:
        assert f"set_media_limits(MediaLimits({advice}=...)) allows" in message_of(call)
        set_media_limits(MediaLimits(**{advice: getattr(before, advice)}))
        call()
    finally:
        set_media_limits(before)
    assert media_limits() == before


def png() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (4, 3)).save(file, "PNG")
    return file.getvalue()


def test_several_images_go_through_the_function_that_takes_several() -> None:
    several = np.zeros((2, 5, 3, 4), np.float32)
    assert "make_image_inputs" in message_of(lambda: make_image_input(several))
    assert len(make_image_inputs(several)) == 2


def test_one_of_several_tokenizers_is_chosen_by_its_path(tmp_path: Path, demo_folder: Path) -> None:
    shutil.copy(demo_folder / "tokenizer.json", tmp_path / "a.json")
    for name in ("a.model", "b.model"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.json").rename(tmp_path / "one.json")
    advice = message_of(lambda: load_tokenizer(tmp_path), TokenizerError)
    assert "give the path of one" in advice
    assert load_tokenizer(tmp_path / "one.json").vocab_size


def test_one_of_several_models_is_chosen_by_its_name(tmp_path: Path, demo_folder: Path) -> None:
    shutil.copytree(demo_folder, tmp_path / "both")
    shutil.copy(demo_folder / "model.pte", tmp_path / "both" / "other.pte")
    both = tmp_path / "both"
    assert "model_file=" in message_of(lambda: MultimodalRunner.from_pretrained(both), ModelLoadError)
    MultimodalRunner.from_pretrained(both, model_file="other.pte").close()


def test_the_right_runner_is_named() -> None:
    speech = MODELS / "speech" / "kv.pte"
    assert "use SpeechRunner" in message_of(lambda: MultimodalRunner(speech), ContractError)
    SpeechRunner(speech).close()
    demo = PACKAGE / "models" / "tiny_vlm" / "model.pte"
    assert "try MultimodalRunner" in message_of(lambda: SpeechRunner(demo), ContractError)
    MultimodalRunner(demo).close()
    t5 = MODELS / "seq2seq" / "t5.pte"
    assert "use Seq2SeqRunner" in message_of(lambda: MultimodalRunner(t5), ContractError)
    assert "try Seq2SeqRunner" in message_of(lambda: SpeechRunner(t5), ContractError)
    Seq2SeqRunner(t5).close()
    assert "try MultimodalRunner" in message_of(lambda: Seq2SeqRunner(demo), ContractError)


def test_what_a_decoder_begins_with_is_found_beside_the_model(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(MODELS / "seq2seq" / name, tmp_path)
    data = (MODELS / "seq2seq" / "t5.pte").read_bytes()
    hidden = data.replace(b"decoder_start_token_id", b"decoder_begin_token_id")
    (tmp_path / "t5.pte").write_bytes(hidden)
    Seq2SeqRunner(tmp_path / "t5.pte").close()
    (tmp_path / "config.json").unlink()
    said = message_of(lambda: Seq2SeqRunner(tmp_path / "t5.pte"), ContractError)
    assert "generation_config.json or config.json" in said


def test_pooling_is_said_where_no_file_says_it(tmp_path: Path) -> None:
    source = MODELS / "embeddings" / "bert_mean"
    for name in ("model.pte", "tokenizer.json"):
        shutil.copy(source / name, tmp_path)
    advice = message_of(lambda: EmbeddingModel(tmp_path / "model.pte"), ContractError)
    assert "give pooling=, for example 'mean'" in advice
    EmbeddingModel(tmp_path / "model.pte", pooling="mean").close()


def test_a_processor_is_named_where_none_is_found(tmp_path: Path, demo_folder: Path) -> None:
    for name in ("model.pte", "tokenizer.json"):
        shutil.copy(demo_folder / name, tmp_path)
    shutil.copy(MODELS / "speech" / "preprocessor_config.json", tmp_path)  # describes a feature extractor
    image = make_image_input(np.zeros((90, 70, 3), np.uint8))
    with MultimodalRunner(tmp_path / "model.pte") as runner:
        assert "processor_path=" in message_of(lambda: runner.prefill(image))
    with MultimodalRunner(tmp_path / "model.pte", processor_path=demo_folder) as runner:
        assert runner.prefill(image) == 16


def test_errors_of_the_command_line_name_flags_of_their_own_command() -> None:
    """`generate: --chat: ...` is about a flag that `generate` has."""
    commands = next(
        action.choices for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    named = 0
    for text in texts():
        if (match := re.match(r"(\w+): ", text.text)) and match[1] in commands:
            for flag in re.findall(r"(?<![\w\-])--[a-z][a-z\-]*", text.text):
                named += 1
                options = [o for action in commands[match[1]]._actions for o in action.option_strings]
                assert flag in options, text
    assert named >= 5
