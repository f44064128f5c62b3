"""Whisper base, as tools/whisper exports it, hears what transformers' eager model hears."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from executorch_mm.speech import SpeechRunner
from speech_scores import error_rate

pytestmark = pytest.mark.real_model

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests" / "data" / "speech"
RECORD = json.loads((DATA / "whisper_base_transformers.json").read_text(encoding="utf-8"))
CLIPS = {clip["name"]: clip for clip in RECORD["clips"]}
VARIANTS = ("base-fp32", "base-8bit", "base-optimum-fp32")


@pytest.fixture(scope="module")
def folder() -> Path:
    """What make.py and clips.py of tools/whisper wrote."""
    default = ROOT.parent / "shared" / "models" / "whisper"
    path = Path(os.environ.get("EXECUTORCH_MM_TEST_SPEECH") or default)
    if not (path / "clips" / "clips.json").is_file():
        pytest.skip(f"{path} has no clips; EXECUTORCH_MM_TEST_SPEECH names another folder")
    return path


@pytest.fixture(scope="module", params=VARIANTS)
def whisper(folder: Path, request: pytest.FixtureRequest) -> Iterator[SpeechRunner]:
    path = folder / request.param / "model.pte"
    if not path.is_file():
        pytest.skip(f"{path} does not exist")
    with SpeechRunner(path) as runner:
        yield runner


def hear(whisper: SpeechRunner, folder: Path, clip: str) -> str:
    audio = folder / "clips" / CLIPS[clip]["file"]
    return whisper.transcribe(audio, language="en", temperature=0.0, condition_on_previous_text=False).text


def test_the_word_error_rate_is_that_of_the_eager_model(whisper: SpeechRunner, folder: Path) -> None:
    ours = error_rate((hear(whisper, folder, name), clip["said"]) for name, clip in CLIPS.items())
    eager = error_rate((clip["heard"], clip["said"]) for clip in CLIPS.values())
    assert ours <= eager + 1


def test_it_tells_the_language(whisper: SpeechRunner, folder: Path) -> None:
    assert whisper.transcribe(folder / "clips" / CLIPS["jfk"]["file"]).language == "en"


def test_segments_of_a_long_audio_clip_follow_each_other(whisper: SpeechRunner, folder: Path) -> None:
    clip = CLIPS["long"]
    segments = whisper.transcribe(folder / "clips" / clip["file"], timestamps=True, language="en").segments
    assert len(segments) > 2
    assert segments[0].start >= 0
    assert all(a.end <= b.start for a, b in itertools.pairwise(segments))
    assert segments[-1].end <= clip["seconds"] + 0.5
