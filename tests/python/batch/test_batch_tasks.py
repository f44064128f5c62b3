"""What rows for models of vectors and of speech are answered, and what is refused."""

from __future__ import annotations

import base64
import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import speech_cases
from executorch_mm import EmbeddingModel, InputError, SpeechRunner
from executorch_mm._openai.failures import ApiError
from executorch_mm.batch.tasks import Task, TaskOptions

EMBEDDER = Path(__file__).parents[2] / "models" / "embeddings" / "bert_mean"
SPEECH = speech_cases.FOLDER / "kv.pte"


def task(endpoint: str, model: Path, **options: Any) -> Task[Any]:
    return Task.of(TaskOptions(endpoint, str(model), str(model.parent), num_threads=1, **options))


@pytest.fixture(scope="module")
def vectors() -> Task[Any]:
    return task("embeddings", next(EMBEDDER.glob("*.pte")))


@pytest.fixture(scope="module")
def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setparams((1, 2, speech_cases.RATE, 0, "NONE", ""))
        name = next(iter(speech_cases.EXPECTED["kv"]["clips"]))
        audio.writeframes((speech_cases.clip(name) * 32767).astype(np.int16).tobytes())
    return file.getvalue()


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory, wav: bytes) -> tuple[Task[Any], Any]:
    folder = tmp_path_factory.mktemp("audio")
    (folder / "a.wav").write_bytes(wav)
    with SpeechRunner(SPEECH, num_threads=1) as runner:
        alone = runner.transcribe(folder / "a.wav", language="de")
    return (
        task("transcriptions", SPEECH, media_folder=str(folder), config={"language": "de"}),
        alone,
    )


def line(url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": "a", "method": "POST", "url": url, "body": body}


def test_texts_are_embedded_as_the_model_embeds_them(vectors: Task[Any]) -> None:
    with EmbeddingModel(EMBEDDER, num_threads=1) as model:
        alone = model.encode(["a red circle", "a dog"])
    several = line("/v1/embeddings", model="m", input=["a red circle", "a dog"], encoding_format="float")

    body = vectors.answer(vectors.ready(several))
    short = vectors.answer(vectors.ready({"id": 1, "text": "a red circle"}))

    assert [item["index"] for item in body["data"]] == [0, 1]
    assert (body["object"], body["model"]) == ("list", "m")
    np.testing.assert_allclose([item["embedding"] for item in body["data"]], alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(short["embedding"], alone[0], rtol=1e-5, atol=1e-6)
    model: Any = vectors
    counts = [model._model.count_tokens(text) for text in ("a red circle", "a dog")]
    assert short["usage"] == {"prompt_tokens": counts[0], "total_tokens": counts[0]}
    assert body["usage"] == {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (line("/v1/embeddings", input=[]), "input: expected a text or a list of texts"),
        (line("/v1/embeddings", input=[[1, 2]]), "input: expected a text or a list of texts"),
        (line("/v1/embeddings", input="a", dimensions=5), "dimensions: expected"),
        (line("/v1/embeddings", input="a", encoding_format="base64"), "encoding_format: expected float"),
        (line("/v1/chat/completions", input="a"), "url: expected /v1/embeddings"),
        ({**line("/v1/embeddings", input="a"), "method": "GET"}, "method: expected POST"),
        ({**line("/v1/embeddings", input="a"), "more": 1}, "more: there is no such field"),
        ({"custom_id": "a", "url": "/v1/embeddings"}, "body: expected an object"),
        ({"text": 5}, "text: expected a text"),
        ({"id": 5}, "text: expected a text"),
    ],
)
def test_rows_that_ask_for_something_else_are_refused(
    vectors: Task[Any], row: dict[str, Any], message: str
) -> None:
    with pytest.raises(ApiError) as caught:
        vectors.ready(row)
    assert str(caught.value).startswith(message)


def test_audio_is_written_down_as_the_runner_does_it(texts: tuple[Task[Any], Any], wav: bytes) -> None:
    speech, alone = texts
    uri = f"data:audio/wav;base64,{base64.b64encode(wav).decode()}"

    short = speech.answer(speech.ready({"id": 1, "audio": "a.wav"}))
    plain = speech.answer(speech.ready(line("/v1/audio/transcriptions", model="m", file=uri)))
    whole = speech.answer(
        speech.ready(line("/v1/audio/transcriptions", file=uri, response_format="verbose_json"))
    )

    assert alone.text
    assert plain == {"text": alone.text}
    assert short == whole
    assert whole["text"] == alone.text
    assert (whole["language"], whole["duration"]) == (alone.language, pytest.approx(alone.duration))
    assert [segment["start"] for segment in whole["segments"]] == [part.start for part in alone.segments]


def test_a_row_may_ask_that_silence_is_passed_over(texts: tuple[Task[Any], Any], tmp_path: Path) -> None:
    silence = tmp_path / "silence.wav"
    with wave.open(str(silence), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 16000))
    uri = f"data:audio/wav;base64,{base64.b64encode(silence.read_bytes()).decode()}"
    speech, _ = texts

    assert speech.answer(speech.ready({"audio": uri, "vad_filter": True}))["segments"] == []
    with pytest.raises(InputError, match="vad_filter"):
        speech.ready({"audio": uri, "vad_filter": "loud"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"audio": "../a.wav"}, "expected a file in"),
        ({"audio": 5}, "file: expected a data URI or the name of a file"),
        ({"audio": "data:audio/wav;base64,AAAA"}, "audio"),
        ({"audio": "a.wav", "language": "xx"}, "language"),
        (
            line("/v1/audio/transcriptions", file="a.wav", response_format="srt"),
            "response_format: expected json",
        ),
        (line("/v1/audio/transcriptions", file="a.wav", stream=True), "stream: there is no such field"),
    ],
)
def test_audio_that_cannot_be_written_down_is_refused(
    texts: tuple[Task[Any], Any], row: dict[str, Any], message: str
) -> None:
    speech, _ = texts
    with pytest.raises((ApiError, InputError), match=message):
        speech.answer(speech.ready(row))


def test_options_of_chats_are_none_of_other_models() -> None:
    with pytest.raises(InputError, match="config: expected none for embeddings"):
        task("embeddings", next(EMBEDDER.glob("*.pte")), config={"top_k": 5})
    with pytest.raises(InputError, match="top_k: there is no such option"):
        task("transcriptions", SPEECH, config={"top_k": 5})
