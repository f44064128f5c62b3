"""/v1/audio/transcriptions, /v1/audio/translations and /v1/embeddings, by OpenAI's own client."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_mm import ClipModel, EmbeddingModel, MultimodalModel, SpeechModel, SpeechRunner
from executorch_mm.demo import Scene, render
from serving import image_part

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn", reason="the extra executorch_mm[server] is not installed")

MODELS = Path(__file__).resolve().parents[2] / "models"
LOADERS: dict[str, Any] = {
    "whisper": lambda: SpeechModel(MODELS / "speech" / "kv.pte", num_threads=1),
    "transducer": lambda: SpeechRunner(MODELS / "transducer" / "tdt.pte", num_threads=1),
    "bert": lambda: EmbeddingModel(MODELS / "embeddings" / "bert_mean", num_threads=1),
    "clip": lambda: ClipModel(MODELS / "clip" / "clip.pte", num_threads=1),
    "demo": MultimodalModel.demo,
}


@pytest.fixture(scope="module")
def several() -> Iterator[Any]:
    from executorch_mm.server import BackgroundServer

    with (
        BackgroundServer(LOADERS) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def speech() -> Iterator[SpeechRunner]:
    with SpeechRunner(MODELS / "speech" / "kv.pte", num_threads=1) as runner:
        yield runner


@pytest.fixture(scope="module")
def clip_of_speech() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setparams((1, 2, 16_000, 0, "NONE", ""))
        audio.writeframes(np.random.default_rng(0).integers(-9000, 9000, 24_000, np.int16).tobytes())
    return file.getvalue()


def hear(client: Any, data: bytes, **options: Any) -> Any:
    options = {"model": "whisper", "file": ("speech.wav", data), **options}
    return client.audio.transcriptions.create(**options)


def test_speech_is_written_down_in_every_format(
    several: Any, speech: SpeechRunner, clip_of_speech: bytes
) -> None:
    plain = speech.transcribe(clip_of_speech)
    timed = speech.transcribe(clip_of_speech, timestamps=True)

    assert hear(several, clip_of_speech).text == plain.text.strip()
    assert hear(several, clip_of_speech).usage.seconds == 2
    assert hear(several, clip_of_speech, response_format="text").rstrip("\n") == plain.text.strip()
    assert hear(several, clip_of_speech, response_format="srt") == timed.to_srt()
    assert hear(several, clip_of_speech, response_format="vtt") == timed.to_vtt()
    verbose = hear(several, clip_of_speech, response_format="verbose_json")
    assert verbose.text == timed.text.strip()
    assert verbose.duration == pytest.approx(1.5)
    assert verbose.language == timed.language
    assert [(each.start, each.end, each.text) for each in verbose.segments] == [
        (each.start, each.end, each.text) for each in timed.segments
    ]
    assert verbose.segments[0].avg_logprob == pytest.approx(timed.segments[0].avg_logprob)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # by OpenAI, for translations
def test_options_of_speech_do_what_they_do_offline(
    several: Any, speech: SpeechRunner, clip_of_speech: bytes
) -> None:
    language = speech.languages[-1]
    spoken = hear(several, clip_of_speech, language=language, response_format="verbose_json")
    offline = speech.transcribe(clip_of_speech, language=language, timestamps=True)
    assert (spoken.text, spoken.language) == (offline.text.strip(), language)

    translated = several.audio.translations.create(model="whisper", file=("a.wav", clip_of_speech))
    assert translated.text == speech.transcribe(clip_of_speech, task="translate").text.strip()
    prompted = hear(several, clip_of_speech, prompt="a b c")
    assert prompted.text == speech.transcribe(clip_of_speech, prompt="a b c").text.strip()


def test_speech_is_streamed(several: Any, speech: SpeechRunner, clip_of_speech: bytes) -> None:
    expected = speech.transcribe(clip_of_speech).text

    events = list(hear(several, clip_of_speech, stream=True))

    assert "".join(event.delta for event in events[:-1]) == expected == events[-1].text
    assert {event.type for event in events[:-1]} == {"transcript.text.delta"}
    assert events[-1].type == "transcript.text.done"


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # by OpenAI, for translations
def test_a_translation_is_streamed(several: Any, speech: SpeechRunner, clip_of_speech: bytes) -> None:
    expected = speech.transcribe(clip_of_speech, task="translate").text

    with several.audio.translations.with_streaming_response.create(
        model="whisper", file=("a.wav", clip_of_speech), extra_body={"stream": "true"}
    ) as response:
        lines = [line for line in response.iter_lines() if line]

    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert "".join(event["delta"] for event in events[:-1]) == expected == events[-1]["text"]
    assert events[-1]["type"] == "transcript.text.done"


def test_words_have_times_where_the_model_tells(several: Any, clip_of_speech: bytes) -> None:
    options: dict[str, Any] = {"response_format": "verbose_json", "timestamp_granularities": ["word"]}
    with LOADERS["transducer"]() as runner:
        segments = runner.transcribe(clip_of_speech, timestamps=True).segments

    heard = hear(several, clip_of_speech, model="transducer", **options)

    assert " ".join(word.word for word in heard.words).split() == "".join(s.text for s in segments).split()
    assert heard.words[0].start == pytest.approx(segments[0].token_times[0][0])
    assert all(word.start <= word.end for word in heard.words)
    assert heard.segments is None
    with pytest.raises(openai.BadRequestError, match="whisper tells no times of words"):
        hear(several, clip_of_speech, **options)


@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")  # which OpenAI 1 and 2 use
@pytest.mark.parametrize(
    ("options", "status", "param"),
    [
        ({"model": "none"}, 404, "model"),
        ({"model": "demo"}, 400, "model"),
        ({"file": ("a.wav", b"no audio")}, 422, None),
        ({"response_format": "xml"}, 400, "response_format"),
        ({"language": "xx"}, 400, "language"),
        ({"temperature": -1}, 400, "temperature"),
        ({"timestamp_granularities": ["word"]}, 400, "timestamp_granularities[]"),
        ({"extra_body": {"beams": 3}}, 400, "beams"),
    ],
)
def test_a_wrong_field_of_a_form_is_named(
    options: dict[str, Any], status: int, param: str | None, several: Any, clip_of_speech: bytes
) -> None:
    for stream in ({}, {"stream": True}):
        with pytest.raises(openai.APIStatusError) as caught:
            hear(several, clip_of_speech, **stream, **options)
        assert (caught.value.status_code, caught.value.param) == (status, param)


def test_texts_become_vectors(several: Any) -> None:
    texts = ["a red circle", "a dog", "x" * 500]
    with LOADERS["bert"]() as model:
        expected = model.encode(texts)
        num_tokens = sum(map(model.count_tokens, texts))

    answer = several.embeddings.create(model="bert", input=texts)  # as base64, which the client reads
    floats = several.embeddings.create(model="bert", input=texts, encoding_format="float")
    one = several.embeddings.create(model="bert", input=texts[0], dimensions=expected.shape[1])

    np.testing.assert_allclose([each.embedding for each in answer.data], expected, atol=1e-6)
    np.testing.assert_allclose([each.embedding for each in floats.data], expected, atol=1e-6)
    np.testing.assert_allclose(one.data[0].embedding, expected[0], atol=1e-6)
    assert [each.index for each in answer.data] == [0, 1, 2]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == num_tokens > 6


def test_images_become_vectors_of_the_same_space(several: Any, questions: list[tuple[Scene, Any]]) -> None:
    scene, _ = questions[0]
    with LOADERS["clip"]() as model:
        image = model.encode_image([render(scene)])[0]
        text = model.encode_text(["a red circle"])[0]

    answer = several.embeddings.create(model="clip", input=[image_part(scene), "a red circle"])

    np.testing.assert_allclose(answer.data[0].embedding, image, atol=1e-6)
    np.testing.assert_allclose(answer.data[1].embedding, text, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "status", "param"),
    [
        ({"model": "demo"}, 400, "model"),
        ({"input": []}, 400, "input"),
        ({"input": ""}, 400, "input"),
        ({"input": [[1, 2]]}, 400, "input[0]"),
        ({"input": ["a", {"type": "image_url", "image_url": {"url": "/etc/hostname"}}]}, 400, "input[1]"),
        ({"input": ["a", ""]}, 400, "input[1]"),
        ({"input": ["a"] * 2049}, 400, "input"),
        ({"dimensions": 3}, 400, "dimensions"),
        ({"encoding_format": "int8"}, 400, "encoding_format"),
    ],
)
def test_a_wrong_field_of_a_request_for_vectors_is_named(
    options: dict[str, Any], status: int, param: str, several: Any
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        several.embeddings.create(**{"model": "bert", "input": "a", **options})
    assert caught.value.status_code == status
    assert str(caught.value.param).startswith(param)
    assert json.dumps(caught.value.body)
