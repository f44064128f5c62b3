"""What users' type checkers see; checked by mypy --strict, never run."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

from executorch_mm import (
    AsyncStream,
    ClipModel,
    GenerationConfig,
    GenerationResult,
    LarkGrammar,
    MediaLimits,
    MultimodalInput,
    MultimodalRunner,
    Partial,
    Regex,
    Segment,
    Snapshot,
    SpeechRunner,
    Stats,
    Stream,
    Tokenizer,
    Transcription,
    XnnpackOptions,
    media_limits,
    set_media_limits,
)
from executorch_mm.chat import ChatOptions, ChatTemplate
from executorch_mm.compat import executorch as compat
from executorch_mm.utils import (
    make_audio_input,
    make_embedding_input,
    make_image_input,
    make_raw_audio_input,
    make_text_input,
    make_token_input,
)


def construction() -> None:
    runner = MultimodalRunner(model_path="m.pte", tokenizer_path=Path("tokenizer.json"), num_threads=1)
    assert_type(runner, MultimodalRunner)
    assert_type(MultimodalRunner.demo(), MultimodalRunner)
    with MultimodalRunner("m.pte") as opened:
        assert_type(opened, MultimodalRunner)
    MultimodalRunner("m.pte", load_mode="paper")  # type: ignore[arg-type]
    MultimodalRunner(bytearray(b"..."), "tokenizer.json", xnnpack=XnnpackOptions(weight_cache=True))
    MultimodalRunner(memoryview(b"..."), Path("tokenizer.json"), profile_path=Path("run.etdump"))
    MultimodalRunner(5, "tokenizer.json")  # type: ignore[arg-type]
    XnnpackOptions(workspace_sharing="some")  # type: ignore[arg-type]
    assert_type(runner.tokenizer, Tokenizer)
    assert_type(runner.history, list[int])
    assert_type(runner.save(), Snapshot)
    assert_type(runner.save(Path("chat.emm"), dtype="int8"), Snapshot)
    runner.restore("chat.emm")
    runner.save("chat.emm", dtype="float8")  # type: ignore[arg-type]


class Model:
    @classmethod
    def model_json_schema(cls, by_alias: bool = True) -> dict[str, object]:
        return {"title": by_alias}


def formats(runner: MultimodalRunner) -> None:
    runner.generate_text("a", response_format={"type": "object"})
    runner.generate_text("a", response_format=Model)
    runner.generate_result("a", response_format=Model).parsed.name  # noqa: B018  # of whatever class
    runner.generate_text("a", GenerationConfig(response_format=Regex("a+")))
    assert_type(runner.chat([], response_format=LarkGrammar("start: A")).stats.mask_seconds, float)
    runner.generate_text("a", response_format="json")  # type: ignore[arg-type]
    runner.generate_text("a", response_format=str)  # type: ignore[arg-type]


def answers(runner: MultimodalRunner) -> None:
    config = GenerationConfig(max_new_tokens=5, stop="x")
    image = make_image_input(np.zeros((4, 4, 3), np.uint8), layout="HWC")
    assert_type(runner.generate_text(["a", image], config), str)
    stream = runner.stream("a")
    assert_type(stream, Stream[str, GenerationResult])
    assert_type(stream.result, GenerationResult | None)
    pieces: Generator[str, None, None] = stream
    assert_type(next(pieces), str)
    assert_type(runner.prefill([image]), int)
    assert_type(runner.stats, Stats)
    assert_type(runner.stats.tokens_per_second, float)
    assert_type(runner.stats.finish_reason, str | None)
    runner.generate("a", config, token_callback=print, stats_callback=lambda stats: stats.to_json())
    runner.generate_text(5)  # type: ignore[arg-type]
    result = runner.generate_result("a", config, temperature=0.5, logit_bias={3: 1.0}, logprobs=2)
    assert_type(result, GenerationResult)
    assert_type(result.token_ids, tuple[int, ...])
    assert_type(result.logprobs, tuple[float, ...] | None)
    assert_type(config.replace(top_k=3), GenerationConfig)
    runner.generate("a", temprature=0.5)  # type: ignore[call-arg]
    runner.stream("a", top_k="x")  # type: ignore[arg-type]
    runner.generate("a", logits_processors=[keep_even])


def keep_even(tokens: list[int], logits: NDArray[np.float32]) -> None:
    logits[1::2] = -np.inf


async def chats(runner: MultimodalRunner) -> None:
    messages: list[dict[str, object]] = [{"role": "user", "content": "hello"}]
    assert_type(runner.chat(messages, max_new_tokens=5), GenerationResult)
    assert_type(runner.stream_chat(messages), Stream[str, GenerationResult])
    assert_type(await runner.achat(messages, tools=[{"type": "function"}]), GenerationResult)
    assert_type(runner.astream_chat(messages), AsyncStream[str, GenerationResult])
    runner.chat("hello", chat_options=ChatOptions(template_options={"enable_thinking": False}))
    runner.chat(5)  # type: ignore[arg-type]
    runner.chat(messages, top_q=1)  # type: ignore[call-arg]
    assert_type(runner.chat(messages, max_tokens=5, temperature=0.5), GenerationResult)
    runner.generate_text("hello", max_tokens=5)  # type: ignore[call-arg]
    assert_type(MultimodalRunner.from_pretrained("owner/name", revision="main"), MultimodalRunner)
    assert_type(ChatTemplate("{{ 1 }}").render(messages), str)
    runner.chat([Turn("user", "hello")], tools=[add, Arguments, Arguments()])
    runner.chat(
        [Arguments()], chat_options=ChatOptions(now=datetime(2026, 1, 1), special_tokens_in_text=True)
    )
    runner.chat([5])  # type: ignore[list-item]
    runner.chat(messages, tools=["add"])  # type: ignore[list-item]


@dataclass
class Turn:
    role: str
    content: str


class Arguments:
    """As pydantic's models."""

    def model_dump(self, *, mode: str = "python") -> dict[str, object]:
        return {"role": mode}


def add(x: int, y: int) -> int:
    return x + y


def inputs() -> None:
    floats = np.zeros((1, 2, 3), np.float32)
    assert_type(make_text_input("a"), MultimodalInput)
    assert_type(make_token_input([1, 2]), MultimodalInput)
    assert_type(make_audio_input(floats), MultimodalInput)
    assert_type(make_raw_audio_input(floats), MultimodalInput)
    assert_type(make_embedding_input(floats[0]), MultimodalInput)
    assert_type(MultimodalInput("a"), MultimodalInput)
    assert_type(make_image_input("path.png"), MultimodalInput)
    assert_type(make_audio_input(b"RIFF"), MultimodalInput)
    make_image_input(5)  # type: ignore[arg-type]


def embeddings(model: ClipModel) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    assert_type(model.encode_image(image), NDArray[np.float32])
    assert_type(model.encode_image([image, image], normalize=False), NDArray[np.float32])
    assert_type(model.encode_text("a"), NDArray[np.float32])
    model.encode_text(["a", "b"])
    model.encode_text([[1, 2], [3]])
    model.encode_text(5)  # type: ignore[arg-type]
    with ClipModel("m.pte", Path("tokenizer.json"), processor_path="p", num_threads=1) as opened:
        assert_type(opened, ClipModel)


def speech(runner: SpeechRunner) -> None:
    samples = np.zeros(16000, np.float32)
    result = runner.transcribe(samples, sampling_rate=16000, language="en", temperature=(0.0, 0.4))
    assert_type(result, Transcription)
    assert_type(result.segments, tuple[Segment, ...])
    assert_type(runner.stream_transcribe("a.wav", timestamps=True), Stream[Partial | Segment, Transcription])
    assert_type(runner.astream_transcribe(b"RIFF"), AsyncStream[Partial | Segment, Transcription])
    runner.transcribe("a.wav", task="sing")  # type: ignore[arg-type]
    runner.transcribe("a.wav", beams=5)  # type: ignore[call-arg]


def limits() -> None:
    assert_type(set_media_limits(MediaLimits(image_pixels=10**9)), MediaLimits)
    assert_type(media_limits().audio_seconds, int)
    MediaLimits(pixels=5)  # type: ignore[call-arg]


def upstreams_names() -> None:
    runner = compat.MultimodalRunner("m.pte", "tokenizer.json", None)
    config = compat.GenerationConfig(temperature=0, max_new_tokens=5)
    config.echo = False
    parts = [compat.make_text_input("a"), compat.make_image_input(np.zeros((3, 4, 4), np.uint8))]
    assert_type(runner.generate_text(parts, config), str)
    assert_type(runner.generate_text_hf({"input_ids": np.zeros(3, np.int64)}, config, 7), str)
    runner.generate(parts, config, print, lambda stats: assert_type(stats, compat.Stats).to_json_string())
    assert_type(parts[0].get_tokens(), list[int] | None)
    assert_type(compat.Image([1, 2, 3], 1, 1, 3).uint8_data, list[int])
    assert_type(runner.runner, MultimodalRunner)
    assert_type(compat.TextLLMRunner("m.pte", "tokenizer.json").get_vocab_size(), int)
    compat.TextLLMRunner("m.pte", "tokenizer.json").generate("a")  # type: ignore[call-arg]
    runner.generate(["a"], config)  # type: ignore[list-item]
