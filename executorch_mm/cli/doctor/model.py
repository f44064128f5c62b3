"""Checks of a model: its program, what lies beside it, and a short answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from executorch_mm import MissingDependencyError, ModelLoadError
from executorch_mm.cli.doctor.check import MIB, Check, Status, guarded
from executorch_mm.cli.doctor.installation import available_memory
from executorch_mm.inputs import Prompt, PromptPart
from executorch_mm.stats import counted

if TYPE_CHECKING:
    from executorch_mm import ModelReport, MultimodalRunner, Seq2SeqRunner
    from executorch_mm._loading.pretrained import ModelFiles

_NAME = "name a .pte file, a folder with exactly one, or a Hugging Face repository as owner/name"
_INSPECT = (
    "`executorch-mm inspect` shows what the file holds, "
    "https://executorch-mm.example/docs/compatibility.html which exports run"
)
_TOKENIZER = "put the model's tokenizer.json beside the .pte file, or name the file with --tokenizer"
_PROCESSOR = "put the model's preprocessor_config.json beside it, or give prepared arrays"
_TEMPLATE = "put the chat_template.jinja or tokenizer_config.json that came with the model beside it"
_END_METHODS = ("get_eos_ids", "get_eos_id")
_NUM_TOKENS = 8
_SAMPLING_RATE = 16_000


def check_model(find: Callable[[], ModelFiles]) -> Iterator[Check]:
    """Every check of one model.

    Args:
        find: Gives its files; may raise `ModelLoadError`.
    """
    from executorch_mm import inspect_model

    try:
        files = find()
        report = inspect_model(files.model)
    except (ModelLoadError, MissingDependencyError) as error:
        yield Check("model", "failed", str(error), _NAME)
        return
    yield from _program(report)
    yield from _memory(report)
    if report.kind == "other":
        return
    found = list(guarded("tokenizer", lambda: _tokenizer(files, report), _TOKENIZER))
    yield from found
    if all(check.status != "failed" for check in found):
        check = {"speech": _listen, "seq2seq": _rewrite}.get(report.kind, _run)
        yield from guarded("load", lambda: check(files), _INSPECT)


def _program(report: ModelReport) -> Iterator[Check]:
    size = f"{report.path}: {report.file_bytes / MIB:.1f} MiB"
    if report.kind == "other":
        advice = f"other classes may, such as ClipModel; {_INSPECT}"
        yield Check("model", "warning", f"{size}, which MultimodalRunner cannot run", advice)
    else:
        yield Check("model", "ok", f"{size}, {report.kind}, context of {report.capacity} positions")
    for problem in report.problems:
        status: Status = "failed" if problem.startswith("it will not be loaded") else "warning"
        yield Check("program", status, problem, _INSPECT)


def _memory(report: ModelReport) -> Iterator[Check]:
    """The file is mapped, and delegates keep a second, packed copy of the weights."""
    shared = max((method.shared_bytes for method in report.methods), default=0)
    planned = shared + sum(sum(method.arena_bytes) - method.shared_bytes for method in report.methods)
    needed = 2 * report.file_bytes + planned
    detail = f"it needs up to {needed // MIB} MiB"
    available = available_memory()
    if available is not None and needed > available:
        advice = "end other programs, or export with less context or smaller weights"
        yield Check("memory", "warning", f"{detail}, {available // MIB} MiB are available", advice)
    else:
        yield Check("memory", "ok", detail)


def _tokenizer(files: ModelFiles, report: ModelReport) -> Iterator[Check]:
    from executorch_mm import load_tokenizer

    tokenizer = load_tokenizer(files.tokenizer)
    yield Check("tokenizer", "ok", repr(tokenizer))
    if not tokenizer.eos_ids and not {*_END_METHODS} & set(report.metadata):
        detail = "neither the tokenizer nor the model names an end token: answers run to their limit"
        yield Check("end tokens", "warning", detail, "give stop_token_ids= or stop= with each request")
    from executorch_mm._loading.end_tokens import complaint, ordinary_ends

    named = [token for name in _END_METHODS for token in _ids(report.metadata.get(name))]
    beside = files.tokenizer if files.tokenizer.is_dir() else files.tokenizer.parent
    wrong = ordinary_ends(named, tokenizer, [files.model.parent, beside])
    if wrong:
        advice = "answers end as the tokenizer says; other runners need an export with the right get_eos_ids"
        yield Check("end tokens", "warning", complaint(wrong, tokenizer), advice)


def _ids(value: object) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, int)]


def _run(files: ModelFiles) -> Iterator[Check]:
    """Loads the model and has it read a text, a chat, an image and an audio clip, as far as it takes them."""
    from executorch_mm import MultimodalRunner

    with MultimodalRunner(files.model, files.tokenizer, data_path=files.data) as runner:
        yield Check("load", "ok", f"{runner.contract.max_chunk} tokens a call, capacity {runner.capacity}")
        yield from _vocabulary(runner)
        yield from guarded("text", lambda: _read(runner, "text", ["Hello"]), _INSPECT)
        yield from guarded("chat template", lambda: _chat(runner), _TEMPLATE)
        if runner.contract.has_image_encoder:
            yield from guarded("image", lambda: _read(runner, "image", [_image(), "Hello"]), _PROCESSOR)
        if runner.contract.has_audio_encoder:
            yield from guarded("audio", lambda: _read(runner, "audio", [_audio(), "Hello"]), _PROCESSOR)


def _listen(files: ModelFiles) -> Iterator[Check]:
    """Loads a speech model and has it hear half a second of noise."""
    import numpy as np

    from executorch_mm.speech import SpeechRunner

    noise = np.random.default_rng(0).uniform(-0.1, 0.1, _SAMPLING_RATE // 2).astype(np.float32)
    with SpeechRunner(files.model, files.tokenizer, data_path=files.data) as runner:
        yield Check("load", "ok", f"languages to choose from: {len(runner.languages)}")
        runner.transcribe(noise, sampling_rate=_SAMPLING_RATE, temperature=0.0, max_new_tokens=_NUM_TOKENS)
        stats = runner.stats
        detail = (
            f"{counted(stats.num_prompt_tokens, 'position')}, {counted(stats.num_generated_tokens, 'token')}"
        )
        yield Check("audio", "ok", detail)


def _rewrite(files: ModelFiles) -> Iterator[Check]:
    """Loads a text-to-text model and has it answer a text."""
    from executorch_mm import Seq2SeqRunner

    with Seq2SeqRunner(files.model, files.tokenizer, data_path=files.data) as runner:
        yield Check("load", "ok", f"texts of up to {runner.max_source_length} tokens")
        yield from guarded("text", lambda: iter([_answer(runner, "text", "Hello")]), _INSPECT)


def _vocabulary(runner: MultimodalRunner) -> Iterator[Check]:
    given, wanted = runner.tokenizer.vocab_size, runner.contract.vocab_size
    if given > wanted:
        detail = f"the tokenizer has {given} tokens, the model only {wanted}: it is another model's"
        yield Check("vocabulary", "failed", detail, _TOKENIZER)
    else:
        yield Check("vocabulary", "ok", f"{given} tokens, logits for {wanted}")


def _read(runner: MultimodalRunner, name: str, prompt: Prompt) -> Iterator[Check]:
    runner.reset()
    yield _answer(runner, name, prompt)


def _answer(runner: MultimodalRunner | Seq2SeqRunner, name: str, prompt: Prompt) -> Check:
    text = runner.generate_text(prompt, max_new_tokens=_NUM_TOKENS)
    stats = runner.stats
    return Check(
        name,
        "ok",
        f"{counted(stats.num_prompt_tokens, 'position')}, "
        f"{counted(stats.num_generated_tokens, 'token')}: {text!r}",
    )


def _chat(runner: MultimodalRunner) -> Iterator[Check]:
    if not runner.has_chat_template:
        yield Check("chat template", "note", "none: runner.chat cannot be used", _TEMPLATE)
        return
    runner.reset()
    text = runner.chat([{"role": "user", "content": "Hello"}], max_new_tokens=_NUM_TOKENS).text
    yield Check("chat template", "ok", f"found; the answer begins {text!r}")


def _image() -> PromptPart:
    from executorch_mm.demo import make_scene, render

    return render(make_scene(seed=7))


def _audio() -> PromptPart:
    import numpy as np

    from executorch_mm import make_audio_input

    return make_audio_input(np.zeros(_SAMPLING_RATE, np.float32), sampling_rate=_SAMPLING_RATE)
