"""What is taken wherever a path is: file objects, URIs, parts of files and of samples."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_mm import (
    ClipModel,
    InputError,
    MediaLimits,
    SpeechRunner,
    make_audio_input,
    make_image_input,
    make_image_inputs,
    set_media_limits,
)
from executorch_mm.demo import SPOKEN_FILE, make_scene, render
from executorch_mm.preprocess import ImageProcessor, Processor, image_to_hwc_uint8

MODELS = Path(__file__).parents[2] / "models"
PIXELS = np.asarray(render(make_scene(7)))
AUDIO = SPOKEN_FILE.read_bytes()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a #b%20c?é.png"
    render(make_scene(7)).save(path)
    return path


def spooled(data: bytes) -> Any:
    """As web frameworks keep an upload: `UploadFile.file`."""
    file = tempfile.SpooledTemporaryFile()  # noqa: SIM115
    file.write(data)
    return file


def written(data: bytes) -> io.BytesIO:
    """Its position is behind what was written."""
    file = io.BytesIO()
    file.write(data)
    return file


def pipe(data: bytes) -> Any:
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    return os.fdopen(reader, "rb")


FORMS: list[Callable[[Path], Any]] = [
    str,
    Path.as_uri,
    lambda path: path.as_uri().replace("file://", "file://localhost"),
    lambda path: path.as_uri().replace("file:", "FILE:"),
    lambda path: path.read_bytes(),
    lambda path: path.open("rb"),
    lambda path: path.open("rb", buffering=0),
    lambda path: written(path.read_bytes()),
    lambda path: spooled(path.read_bytes()),
    lambda path: pipe(path.read_bytes()),
    lambda path: iter([path.read_bytes()[:99], path.read_bytes()[99:]]),
    lambda path: (path.read_bytes()[i : i + 1000] for i in range(0, path.stat().st_size, 1000)),
]


def close(source: object) -> None:
    if hasattr(source, "close"):
        source.close()


@pytest.mark.parametrize("form", FORMS)
def test_images_come_from_all_that_holds_a_file(form: Callable[[Path], Any], image: Path) -> None:
    source = form(image)
    part = make_image_input(source)
    close(source)
    np.testing.assert_array_equal(image_to_hwc_uint8(part.value), PIXELS)
    again = form(image)
    np.testing.assert_array_equal(image_to_hwc_uint8(again), PIXELS)
    close(again)


@pytest.mark.parametrize("form", FORMS)
def test_audio_comes_from_all_that_holds_a_file(form: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "a #b%20c?é.wav"
    path.write_bytes(AUDIO)
    expected = make_audio_input(SPOKEN_FILE).value
    source = form(path)
    read = make_audio_input(source).value
    close(source)
    np.testing.assert_array_equal(read.samples, expected.samples)


def test_samples_come_in_parts() -> None:
    rng = np.random.default_rng(0)
    samples = rng.uniform(-1, 1, 4000).astype(np.float32)
    parts = (samples[i : i + 700] for i in range(0, 4000, 700))
    np.testing.assert_array_equal(make_audio_input(parts, sampling_rate=16000).value.samples, samples)
    stereo = rng.integers(-9000, 9000, (3000, 2), np.int16)
    blocks = iter([stereo[:1000], stereo[1000:]])
    # The mean of the channels, scaled by int16's 32768.
    expected = (stereo.astype(np.float64) / 32768).mean(axis=1)
    read = make_audio_input(blocks, sampling_rate=8000).value
    np.testing.assert_allclose(read.samples, expected, atol=1e-6)
    assert read.sampling_rate == 8000


def test_models_and_processors_take_them_too(image: Path, demo_folder: Path) -> None:
    clip = next((MODELS / "clip").rglob("model.pte"), next((MODELS / "clip").rglob("*.pte")))
    processor = ImageProcessor.from_pretrained(demo_folder)
    with image.open("rb") as file:
        np.testing.assert_array_equal(processor(file), processor(image))
    every = Processor.from_pretrained(demo_folder)
    np.testing.assert_array_equal(every.audio_features(io.BytesIO(AUDIO)), every.audio_features(SPOKEN_FILE))
    with ClipModel(clip) as model, image.open("rb") as file:
        if any("image" in name for name in model.methods):
            np.testing.assert_array_equal(model.encode_image(file), model.encode_image(image))
    with SpeechRunner(MODELS / "speech" / "kv.pte") as speech:
        expected = speech.transcribe(SPOKEN_FILE, temperature=0.0).text
        assert speech.transcribe(io.BytesIO(AUDIO), temperature=0.0).text == expected
        audio = make_audio_input(SPOKEN_FILE).value
        parts = (audio.samples[i : i + 5000] for i in range(0, len(audio.samples), 5000))
        assert speech.transcribe(parts, sampling_rate=audio.sampling_rate, temperature=0.0).text == expected


def test_several_images_may_be_file_objects(image: Path) -> None:
    with image.open("rb") as one, image.open("rb") as two:
        assert len(make_image_inputs([one, two])) == 2
        assert len(make_image_inputs(file for file in (one, two))) == 2
        with pytest.raises(InputError, match="images: expected a sequence"):
            make_image_inputs(one)  # type: ignore[arg-type]


class Upload:
    """As starlette's UploadFile, whose `read` is for tasks."""

    async def read(self, _size: int = -1) -> bytes:
        return b""


class Broken(io.RawIOBase):
    def read(self, _size: int = -1) -> bytes:
        raise OSError(5, "Input/output error")


def closed() -> io.BytesIO:
    file = io.BytesIO(AUDIO)
    file.close()
    return file


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: io.StringIO("text"),
            "StringIO: expected a file opened for bytes (mode 'rb'), got one opened for",
        ),
        (Upload, "expected bytes, got coroutine (of an UploadFile give its .file)"),
        (Broken, "Input/output error"),
        (closed, "closed file"),
        (lambda: iter([b"ab", 5]), "in parts: expected bytes, got int"),
        (
            lambda: "file://elsewhere/a.png",
            "a file of this machine, as file:///path, got one of elsewhere",
        ),
        (lambda: "file:a.png", "expected an absolute path, as file:///path"),
        (lambda: "file:///a?b.png", "expected ? and # in a path as %3F and %23"),
        (lambda: "file:///a#b.png", "expected ? and # in a path as %3F and %23"),
        (lambda: "file://[a/b.png", "expected file:///path"),
        (lambda: "file:///a%00b.png", "null byte"),
        (lambda: "file:///no/such.png", "No such file or directory"),
    ],
)
@pytest.mark.parametrize("take", [make_image_input, make_audio_input])
def test_what_gives_no_bytes_is_an_input_error(
    take: Callable[[Any], object], make: Callable[[], object], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        take(make())
    assert words in str(caught.value)


def test_iterators_without_anything_or_without_a_rate_say_so() -> None:
    with pytest.raises(InputError, match="got an iterator without any"):
        make_audio_input(iter([]))
    with pytest.raises(InputError, match="arrays of samples need sampling_rate="):
        make_audio_input(np.zeros(5, np.float32) for _ in range(2))
    with pytest.raises(InputError, match="audio: expected"):
        make_audio_input(iter([np.zeros(5, np.float32), "x"]), sampling_rate=16000)  # type: ignore[list-item]


def test_limits_hold_before_everything_has_been_read() -> None:
    asked: list[int] = []

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            asked.append(size)
            return bytes(size)

    def endless() -> Any:
        while True:
            asked.append(1)
            yield np.zeros(16000, np.float32)

    before = set_media_limits(MediaLimits(file_bytes=3_000_000, audio_seconds=20))
    try:
        for take in (make_image_input, make_audio_input):
            with pytest.raises(InputError, match="file_bytes"):
                take(Endless())
        assert sum(asked) < 2 * 5_000_000
        asked.clear()
        with pytest.raises(InputError, match="audio_seconds"):
            make_audio_input(endless(), sampling_rate=16000)
        assert len(asked) == 21
    finally:
        set_media_limits(before or MediaLimits())
