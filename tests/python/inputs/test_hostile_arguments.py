"""Every public callable, given arguments that nobody should give, keeps to the errors that are promised.

The callables are found, not listed: `executorch_mm.__all__`, and the public methods of what it makes.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import executorch_mm
import hostile
from executorch_mm import (
    ClipModel,
    EmbeddingModel,
    ExecutorchMMError,
    GenerationConfig,
    MediaLimits,
    MultimodalInput,
    MultimodalModel,
    MultimodalRunner,
    Reranker,
    Seq2SeqRunner,
    SpeechModel,
    SpeechRunner,
    load_tokenizer,
    set_media_limits,
)
from executorch_mm.preprocess import AudioProcessor, ImageProcessor, Processor, Waveform

MODELS = Path(__file__).resolve().parents[2] / "models"
FAILURES = 6  # how many are shown
# What has no call to make: exceptions, and results, which the package makes.
NO_CALL = {
    *(
        name
        for name in executorch_mm.__all__
        if isinstance(getattr(executorch_mm, name), type)
        and issubclass(getattr(executorch_mm, name), BaseException)
    ),
    *(name for name in executorch_mm.__all__ if typing.is_typeddict(getattr(executorch_mm, name))),
    "AsyncStream",
    "BuildInfo",
    "CacheInfo",
    "Contract",
    "Decision",
    "Delta",
    "ExecutedCall",
    "GenerationResult",
    "LiveTranscription",
    "MethodSpec",
    "ModelReport",
    "Partial",
    "RankedDocument",
    "Score",
    "Segment",
    "Snapshot",
    "Stats",
    "Stream",
    "TensorSpec",
    "Tokenizer",
    "ToolCall",
    "ToolRun",
    "TransducerContract",
    "Transcription",
    "Word",
    "__version__",
}


def is_promised(error: BaseException) -> bool:
    """Whether errors.py promises that a call of the public API may raise it."""
    return isinstance(error, (ExecutorchMMError, hostile.OwnError)) or (
        isinstance(error, MemoryError) and bool(str(error))
    )


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return hostile.values(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def receivers(demo_folder: Path) -> Iterator[dict[str, object]]:
    with (
        MultimodalRunner.demo(num_threads=1) as runner,
        MultimodalModel.demo(num_threads=1) as model,
        SpeechRunner(MODELS / "speech" / "kv.pte", num_threads=1) as speech,
        SpeechModel(MODELS / "speech" / "kv.pte", num_threads=1) as speech_model,
        Seq2SeqRunner(MODELS / "seq2seq" / "t5.pte", num_threads=1) as seq2seq,
        ClipModel(MODELS / "clip" / "clip.pte", num_threads=1) as clip,
        EmbeddingModel(MODELS / "embeddings" / "bert_mean", num_threads=1) as embedder,
        Reranker(MODELS / "embeddings" / "bert_reranker", num_threads=1) as reranker,
    ):
        yield {
            "MultimodalRunner": runner,
            "MultimodalModel": model,
            "SpeechRunner": speech,
            "SpeechModel": speech_model,
            "LiveTranscription": speech.live(sampling_rate=16_000),
            "Seq2SeqRunner": seq2seq,
            "ClipModel": clip,
            "EmbeddingModel": embedder,
            "Reranker": reranker,
            "Tokenizer": load_tokenizer(demo_folder),
            "IncrementalDecoder": load_tokenizer(demo_folder).decoder(),
            "GenerationConfig": GenerationConfig(),
            "MultimodalInput": MultimodalInput("a"),
            "ImageProcessor": ImageProcessor.from_pretrained(demo_folder),
            "AudioProcessor": AudioProcessor.from_pretrained(demo_folder),
            "Processor": Processor.from_pretrained(demo_folder),
            "speech tokenizer": speech.tokenizer,
        }


@pytest.fixture(scope="module")
def right(demo_folder: Path, receivers: dict[str, object]) -> dict[str, object]:
    """Arguments by the names that parameters have everywhere."""
    runner = receivers["MultimodalRunner"]
    assert isinstance(runner, MultimodalRunner)
    image = np.zeros((64, 64, 3), np.uint8)
    audio = np.zeros(1600, np.float32)
    return {
        "model_path": demo_folder / "model.pte",
        "tokenizer_path": demo_folder,
        "path": demo_folder,
        "name": "text_decoder",
        "inputs": "hi",
        "answers": ["one", "two"],
        "messages": [{"role": "user", "content": "hi"}],
        "snapshot": runner.save(),
        "position": 0,
        "text": "a red circle",
        "texts": "a red circle",
        "sentences": ["a red circle"],
        "pairs": [("a", "b")],
        "query": "a",
        "documents": ["b"],
        "a": np.zeros((1, 32), np.float32),
        "b": np.zeros((1, 32), np.float32),
        "parts": ["a", 1],
        "plain": frozenset(),
        "ids": [1, 2],
        "token": "<|end|>",
        "token_id": 1,
        "tokens": [1, 2],
        "value": "a",
        "image": image,
        "images": [image],
        "frames": [image],
        "audio": audio,
        "waveform": Waveform(audio, 16_000),
        "chunk": audio,
        "chunks": [audio],
        "requests": ["hi"],
        "clips": [audio],
        "prompt": "hi",
        "samples": np.zeros((1, 1, 160), np.float32),
        "embeddings": np.zeros((1, 192), np.float32),
        "sampling_rate": 16_000,
        "max_context_len": 100,
        "limits": MediaLimits(),
        "pattern": "a+",
        "definition": "start: /a+/",
    }


def calls(receivers: dict[str, object], right: dict[str, object]) -> Iterator[hostile.Call]:
    for name in sorted({*executorch_mm.__all__} - NO_CALL):
        if (call := hostile.describe(name, getattr(executorch_mm, name), right)) is not None:
            yield call
    for name, of in receivers.items():
        yield from hostile.methods(name, of, right)


def test_hostile_arguments_end_in_an_answer_or_a_promised_error(
    values: dict[str, object], receivers: dict[str, object], right: dict[str, object]
) -> None:
    runner = receivers["MultimodalRunner"]
    assert isinstance(runner, MultimodalRunner)
    every = list(calls(receivers, right))
    assert len(every) > 50
    failures: dict[str, str] = {}

    @settings(max_examples=1500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def attack(data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(every))
        names = data.draw(st.lists(st.sampled_from(call.parameters), min_size=1, max_size=2, unique=True))
        chosen = {name: data.draw(st.sampled_from(sorted(values))) for name in names}
        said = try_call(call, {name: values[value] for name, value in chosen.items()})
        if said is not None:
            failures.setdefault(f"{call.name}({chosen})", said)

    attack()
    set_media_limits(MediaLimits())
    assert not failures, f"{len(failures)}:\n" + "\n".join(
        f"{call}: {said}" for call, said in list(failures.items())[:FAILURES]
    )
    runner.reset()
    with MultimodalRunner.demo(num_threads=1) as fresh:
        question = "how many shapes are there?"
        assert runner.generate_text(question, max_new_tokens=8) == fresh.generate_text(
            question, max_new_tokens=8
        )


def try_call(call: hostile.Call, given_values: dict[str, object]) -> str | None:
    """What was raised, if it is not among what is promised."""
    arguments = {**call.right, **given_values}
    if "max_new_tokens" in call.parameters:
        arguments.setdefault("max_new_tokens", 1)
    runner = getattr(call.function, "__self__", None)
    try:
        hostile.use_up(call.function(**arguments))
    except BaseException as error:  # noqa: BLE001 (that is the question)
        if not is_promised(error):
            return f"{type(error).__name__}: {str(error)[:150]}"
    finally:
        if isinstance(runner, MultimodalRunner):
            runner.reset()
    return None
