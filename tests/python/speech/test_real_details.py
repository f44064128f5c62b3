"""Whisper base in fp32 gives the times of tokens and the beams of transformers' eager model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executorch_mm.speech import SpeechConfig, SpeechRunner

pytestmark = pytest.mark.real_model

ROOT = Path(__file__).parents[3]
RECORD = json.loads((ROOT / "tests" / "data" / "speech" / "whisper_base_details.json").read_text())
PLAIN = SpeechConfig(language="en", temperature=0.0, condition_on_previous_text=False)
SEARCH = ("beam_size", "patience", "length_penalty")
FRAME = 0.02  # seconds


@pytest.fixture(scope="module")
def folder() -> Path:
    """What make.py and clips.py of tools/whisper wrote."""
    default = ROOT.parent / "shared" / "models" / "whisper"
    path = Path(os.environ.get("EXECUTORCH_MM_TEST_SPEECH") or default)
    for needed in ("clips/clips.json", "base-fp32/model.pte"):
        if not (path / needed).is_file():
            pytest.skip(f"{path} has no {needed}; EXECUTORCH_MM_TEST_SPEECH names another folder")
    return path


@pytest.fixture(scope="module")
def whisper(folder: Path) -> Iterator[SpeechRunner]:
    with SpeechRunner(folder / "base-fp32" / "model.pte") as runner:
        yield runner


def audio_of(folder: Path, request: dict[str, Any]) -> Path:
    clips = json.loads((folder / "clips" / "clips.json").read_text())
    files = {clip["name"]: clip["file"] for clip in clips}
    return folder / "clips" / files[request["clip"]]


@pytest.mark.parametrize("request_", RECORD["times"], ids=lambda request: str(request["clip"]))
def test_tokens_begin_within_a_frame_of_where_transformers_has_them(
    request_: dict[str, Any], whisper: SpeechRunner, folder: Path
) -> None:
    result = whisper.transcribe(audio_of(folder, request_), PLAIN, timestamps=True, word_timestamps=True)
    heard = [
        (token, begin)
        for segment in result.segments
        for token, (begin, _) in zip(segment.tokens, segment.token_times, strict=True)
        if whisper.tokenizer.decode([token])
    ]
    assert [token for token, _ in heard] == [token for token, _ in request_["tokens"]]
    for (_, begin), (_, expected) in zip(heard, request_["tokens"], strict=True):
        assert abs(begin - expected) <= FRAME + 1e-6


def name_of(request: dict[str, Any]) -> str:
    return "-".join([request["clip"], *(f"{name}={request[name]}" for name in SEARCH if name in request)])


@pytest.mark.parametrize("request_", RECORD["beams"], ids=name_of)
def test_beams_hear_what_those_of_transformers_hear(
    request_: dict[str, Any], whisper: SpeechRunner, folder: Path
) -> None:
    search = {name: request_[name] for name in SEARCH if name in request_}
    result = whisper.transcribe(audio_of(folder, request_), PLAIN, **search)
    assert [token for segment in result.segments for token in segment.tokens] == request_["tokens"]


def test_the_record_has_beams_that_hear_something_else_than_the_greedy_search() -> None:
    texts: dict[str, set[tuple[int, ...]]] = {}
    for request in RECORD["beams"]:
        texts.setdefault(request["clip"], set()).add(tuple(request["tokens"]))
    assert max(map(len, texts.values())) > 1
