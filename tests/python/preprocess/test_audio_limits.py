"""Audio that asks for too much, is none or hardly any: right, or refused before memory is taken."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import InputError, MediaLimits, make_audio_input, set_media_limits
from executorch_mm.preprocess import AudioProcessor, LogMelConfig, Waveform, load_audio
from executorch_mm.preprocess.waveform import waveform_of

WHISPER = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80}
MAKE = AudioProcessor(LogMelConfig())


@pytest.fixture(autouse=True)
def _defaults_afterwards() -> Iterator[None]:
    yield
    set_media_limits(MediaLimits())


def wav(samples: np.ndarray, rate: int) -> bytes:
    """16 bits; what no writer would write, too."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    body = samples.astype("<i2").tobytes()
    fields = struct.pack("<HHIIHH", 1, channels, rate, rate * 2 * channels % 2**32, 2 * channels, 16)
    content = b"WAVEfmt " + struct.pack("<I", 16) + fields + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(content)) + content


def refusal(make: Callable[[], object], most_bytes: int) -> str:
    """The message of the InputError, which comes before memory is taken."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            make()
        assert tracemalloc.get_traced_memory()[1] < most_bytes
    finally:
        tracemalloc.stop()
    return str(caught.value)


def test_a_small_file_at_1_hz_does_not_become_a_billion_samples() -> None:
    data = wav(np.zeros(100_000), 1)
    message = refusal(lambda: MAKE(data), 2**21)
    assert (
        "expected at least 1000 samples per second, got 1; set_media_limits(MediaLimits(min_sampling"
        in message
    )
    set_media_limits(MediaLimits(min_sampling_rate=1))
    message = refusal(lambda: MAKE(data), 2**21)
    assert (
        "expected at most 21600 seconds, got 100000.0; set_media_limits(MediaLimits(audio_seconds=" in message
    )
    set_media_limits(MediaLimits(min_sampling_rate=1, audio_seconds=10**6))
    message = refusal(lambda: MAKE(data), 2**21)
    assert (
        "expected at most 536870912 samples, got 1600000000; set_media_limits(MediaLimits(audio_sam"
        in message
    )


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (0, "got 0"),
        (999, "expected at least 1000 samples per second, got 999"),
        (768_001, "expected at most 768000 samples per second, got 768001"),
        (2**32 - 1, "expected at most 768000 samples per second, got 4294967295"),
    ],
)
def test_a_rate_outside_of_the_limits_is_refused_for_files_arrays_and_audio(rate: int, message: str) -> None:
    samples = np.zeros(100, np.float32)
    for make in (
        lambda: load_audio(wav(samples, rate)),
        lambda: make_audio_input(samples, sampling_rate=rate),
        lambda: Waveform(samples, rate).resampled(16_000),
    ):
        with pytest.raises(InputError, match=message):
            make()


@pytest.mark.parametrize(
    "rate", [1000, 4000, 8000, 11_025, 12_345, 44_100, 96_000, 192_000, 384_000, 768_000]
)
def test_a_tone_of_every_rate_is_the_same_tone(rate: int) -> None:
    pytest.importorskip("soxr")
    hertz = 200
    t = np.arange(2 * rate) / rate
    audio = load_audio(wav(np.round(16_000 * np.sin(2 * np.pi * hertz * t)), rate)).resampled(16_000)
    assert len(audio.samples) == 32_000
    expected = 16_000 / 32_768 * np.sin(2 * np.pi * hertz * np.arange(32_000) / 16_000)
    np.testing.assert_allclose(audio.samples[4000:28_000], expected[4000:28_000], atol=2e-3)


@pytest.mark.parametrize("kind", ["array", "file"])
@pytest.mark.parametrize(
    ("count", "rate"),
    [(1, 1000), (1, 8000), (1, 16_000), (2, 16_000), (3, 44_100), (10, 48_000), (100, 768_000)],
)
def test_a_few_samples_are_a_chunk_of_silence(count: int, rate: int, kind: str) -> None:
    pytest.importorskip("soxr")
    audio = np.full(count, 0.1, np.float32) if kind == "array" else wav(np.full(count, 3000), rate)
    features = MAKE(audio, rate)
    assert features.shape == (1, 80, 3000)
    assert np.isfinite(features).all()


@pytest.mark.parametrize("kind", ["array", "file"])
@pytest.mark.parametrize(
    ("count", "rate"), [(1, 44_100), (1, 48_000), (1, 96_000), (1, 768_000), (20, 768_000)]
)
def test_samples_of_which_nothing_is_left_are_an_input_error(count: int, rate: int, kind: str) -> None:
    pytest.importorskip("soxr")
    audio = np.full(count, 0.1, np.float32) if kind == "array" else wav(np.full(count, 3000), rate)
    with pytest.raises(InputError, match=f"got {count} samples at {rate} Hz, which are none at 16000 Hz"):
        MAKE(audio, rate)


@pytest.mark.parametrize("rate", [1000, 16_000, 48_000])
@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros((0, 2)), np.zeros((1, 0), np.int16)])
def test_no_samples_are_an_input_error(rate: int, samples: np.ndarray) -> None:
    for make in (
        lambda: make_audio_input(samples, sampling_rate=rate),
        lambda: load_audio(wav(np.zeros(0), rate)),
    ):
        with pytest.raises(InputError, match="with samples, got"):
            make()
    with pytest.raises(InputError, match="with samples, got none"):
        MAKE(Waveform(np.zeros(0, np.float32), rate))


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (MediaLimits(audio_seconds=2), "expected at most 2 seconds, got 2.5"),
        (MediaLimits(audio_samples=79_999), "expected at most 79999 samples, got 80000"),
        (MediaLimits(max_sampling_rate=8000), "expected at most 8000 samples per second, got 16000"),
        (MediaLimits(min_sampling_rate=44_100), "expected at least 44100 samples per second, got 16000"),
    ],
)
@pytest.mark.parametrize("kind", ["array", "WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_every_limit_holds_for_every_kind_of_audio(limit: MediaLimits, message: str, kind: str) -> None:
    samples = 0.1 * np.sin(np.arange(80_000).reshape(40_000, 2) / 20)
    if kind == "array":

        def make() -> object:
            return make_audio_input(samples, sampling_rate=16_000)
    else:
        file = io.BytesIO()
        if kind == "WAV":
            file.write(wav(samples * 30_000, 16_000))
        else:
            pytest.importorskip("soundfile").write(file, samples, 16_000, format=kind)

        def make() -> object:
            return load_audio(file.getvalue())

    make()
    set_media_limits(limit)
    with pytest.raises(InputError, match=message):
        make()


def test_an_audio_clip_that_would_grow_is_refused_before_it_does() -> None:
    audio = Waveform(np.zeros(100_000, np.float32), 8000)
    set_media_limits(MediaLimits(audio_samples=150_000))
    message = refusal(lambda: audio.resampled(16_000), 2**20)
    assert "expected at most 150000 samples, got 200000" in message


def test_parts_that_are_allowed_one_by_one_are_not_together() -> None:
    soundfile = pytest.importorskip("soundfile")
    file = io.BytesIO()
    soundfile.write(file, np.zeros(32_000), 16_000, format="OGG", subtype="VORBIS")
    set_media_limits(MediaLimits(audio_seconds=5))
    assert len(load_audio(file.getvalue() * 2).samples) == 64_000
    with pytest.raises(InputError, match=r"expected at most 5 seconds, got 6\.0"):
        load_audio(file.getvalue() * 3)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"sampling_rate": 10**9}, "sampling_rate"),
        ({"chunk_length": 10**9}, "chunk_length"),
        ({"chunk_length": 10**5, "hop_length": 1600}, "chunk_length"),
        ({"n_fft": 10**9}, "n_fft"),
        ({"n_fft": 480_001}, "n_fft"),
        ({"feature_size": 10**9}, "feature_size"),
        ({"hop_length": 1}, "hop_length"),
    ],
)
def test_a_hostile_feature_extractor_is_refused_before_it_is_made(
    changes: dict[str, int], key: str, tmp_path: Path
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**WHISPER, **changes}))
    message = refusal(lambda: AudioProcessor.from_pretrained(tmp_path), 2**20)
    assert f"{key}: expected a value that asks for at most" in message
    assert str(changes.get(key)) in message


def test_features_of_a_long_audio_clip_take_little_more_than_themselves() -> None:
    samples = np.zeros(16_000 * 600, np.float32)
    samples[::7] = 0.1
    tracemalloc.start()
    features = MAKE(Waveform(samples, 16_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert features.shape == (20, 80, 3000)
    # In float64 and in float32; the samples in float64 would be another 77 MB, as would a padded copy.
    assert peak < 3 * features.nbytes + 2**24


# --- arrays


@pytest.mark.parametrize(
    ("dtype", "middle", "half_range"),
    [("int8", 0, 2**7), ("uint8", 2**7, 2**7), ("int16", 0, 2**15), ("uint16", 2**15, 2**15),
     ("int32", 0, 2**31), ("uint32", 2**31, 2**31), (">i2", 0, 2**15), (">i4", 0, 2**31)],
)  # fmt: skip
def test_integers_are_scaled_by_their_type(dtype: str, middle: int, half_range: int) -> None:
    info = np.iinfo(dtype)
    numbers = np.array([info.min, middle, middle + half_range // 2, info.max], dtype)
    expected = (numbers.astype(np.float64) - middle) / half_range
    np.testing.assert_allclose(waveform_of(numbers, 16_000).samples, expected, atol=1e-7)
    stereo = waveform_of(np.stack([numbers, numbers]), 16_000, is_samples_first=False)
    np.testing.assert_allclose(stereo.samples, expected, atol=1e-7)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "bool", "complex64", "datetime64[s]", "S3"])
def test_numbers_that_have_no_scale_are_refused(dtype: str) -> None:
    with pytest.raises(InputError, match=r"expected (floats, int8, int16, int32|an array of numbers).*got"):
        waveform_of(np.zeros(10, dtype), 16_000)


@pytest.mark.parametrize(
    ("dtypes", "loudest", "cause"),
    [
        ("float16 float32 float64 longdouble", 8.01, "16 bits"),
        ("float16 float32 float64 longdouble", 100, "16 bits"),
        ("float16 float32 float64 longdouble", 32_768, "16 bits"),
        ("float16 float32 float64 longdouble", 50_000, "24 or 32 bits"),
        ("float32 float64 longdouble", 8_388_607, "24 or 32 bits"),
        ("float64 longdouble", 1e300, "24 or 32 bits"),
    ],
)
def test_floats_far_outside_of_their_range_are_refused_with_the_likely_cause(
    dtypes: str, loudest: float, cause: str
) -> None:
    message = rf"expected floats in -1\.\.1.*likely samples of {cause}"
    for dtype in dtypes.split():
        for samples in ([0, loudest], [0.5, -loudest], [[0, 0.1], [0, loudest]]):
            with pytest.raises(InputError, match=message):
                make_audio_input(np.array(samples, dtype), sampling_rate=16_000)


@pytest.mark.parametrize("loudest", [0, 1e-30, 1.0, 1.0001, 1.5, 8.0])
def test_floats_in_their_range_or_a_little_louder_are_taken_as_they_are(loudest: float) -> None:
    samples = np.array([0, loudest, -loudest], np.float32)
    np.testing.assert_array_equal(waveform_of(samples, 16_000).samples, samples)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(value: float) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        with pytest.raises(InputError, match="NaN or infinity"):
            waveform_of(np.array([0, value, 0.5], dtype), 16_000)


def test_a_view_of_any_strides_is_read_and_not_changed() -> None:
    samples = np.linspace(-1, 1, 4000).reshape(1000, 4)
    copy = samples.copy()
    for view in (samples[::-1, 0], samples[:, ::2], samples.T[1], samples[::3, 1:3]):
        made = waveform_of(view, 16_000).samples
        expected = view if view.ndim == 1 else view.mean(axis=1)
        np.testing.assert_allclose(made, expected, atol=1e-6)
        assert made.flags.c_contiguous
        made[:] = 0
    np.testing.assert_array_equal(samples, copy)
