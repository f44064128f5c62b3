"""Audio of every kind, read, averaged to mono and resampled; their features."""

from __future__ import annotations

import base64
import ctypes
import io
import json
import sys
import time
import wave
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from executorch_mm import (
    GenerationConfig,
    InputError,
    MissingDependencyError,
    MultimodalRunner,
    make_audio_input,
)
from executorch_mm._engine.prompt_encoding import PromptEncoder
from executorch_mm.preprocess import AudioProcessor, LogMelConfig, Processor, Waveform, load_audio
from executorch_mm.preprocess.audio import mel_filters
from executorch_mm.preprocess.waveform import waveform_of

RATE = 16000
TIME = np.arange(RATE) / RATE
TONE = (0.5 * np.sin(2 * np.pi * 440 * TIME)).astype(np.float32)
WHISPER = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80, "n_fft": 400}


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    """A WAV file of integers, (num_samples, channels)."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(samples.shape[1])
        writer.setsampwidth(samples.dtype.itemsize)
        writer.setframerate(rate)
        writer.writeframes(samples.astype(samples.dtype.newbyteorder("<")).tobytes())
    return file.getvalue()


INTEGERS = np.round(TONE[:, None] * 32767).astype(np.int16)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (TONE, TONE),
        (TONE.astype(np.float64), TONE),
        (np.array([-32768, 0, 16384], np.int16), [-1, 0, 0.5]),
        (np.array([-(2**31), 0, 2**30], np.int32), [-1, 0, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1, 0, 0.5]),
        (np.stack([TONE, 3 * TONE]), 2 * TONE),
        (np.stack([TONE, 3 * TONE], axis=1), 2 * TONE),
        (np.array([[1, 0], [0, 0.5]]), [0.5, 0.25]),
        (TONE[None], TONE),
        (TONE[:, None], TONE),
        (memoryview(TONE.copy()), TONE),
        (TONE[::-1][::-1], TONE),
    ],
    ids=["float32", "float64", "int16", "int32", "uint8", "channels first", "channels last", "square",
         "one first", "one last", "buffer", "strides"],
)  # fmt: skip
def test_arrays_become_mono_floats(array: object, expected: np.ndarray) -> None:
    audio = waveform_of(array, RATE)
    assert (audio.samples.dtype, audio.sampling_rate) == (np.float32, RATE)
    np.testing.assert_allclose(audio.samples, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_wav_files_of_integers_need_no_further_package(
    dtype: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    integers = INTEGERS.astype(np.int64)
    samples = {
        np.uint8: (integers // 256 + 128).astype(np.uint8),
        np.int16: INTEGERS,
        np.int32: (integers * 65536).astype(np.int32),
    }[dtype]
    stereo = np.concatenate([samples, samples], axis=1)
    path = tmp_path / "tone.wav"
    path.write_bytes(wav(stereo, 8000))
    uri = "data:audio/wav;base64," + base64.b64encode(path.read_bytes()).decode()
    for source in (path, str(path), path.read_bytes(), uri):
        audio = load_audio(source)
        assert audio.sampling_rate == 8000
        np.testing.assert_allclose(audio.samples, TONE, atol=1 / 127 if dtype is np.uint8 else 1e-4)
    url = load_audio("https://a.example/tone.wav", fetch=lambda _: path.read_bytes())
    np.testing.assert_array_equal(url.samples, audio.samples)


@pytest.mark.parametrize(
    ("form", "subtype", "tolerance"),
    [("WAV", "FLOAT", 1e-7), ("WAV", "PCM_24", 1e-6), ("FLAC", "PCM_16", 1e-4), ("OGG", "VORBIS", 0.05),
     ("MP3", "MPEG_LAYER_III", 0.05)],
)  # fmt: skip
def test_other_files_are_read_by_soundfile(form: str, subtype: str, tolerance: float, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / f"tone.{form.lower()}"
    soundfile.write(path, np.stack([TONE, TONE], axis=1), RATE, format=form, subtype=subtype)
    audio = load_audio(path)
    assert audio.sampling_rate == RATE
    np.testing.assert_allclose(audio.samples[2000:14000], TONE[2000:14000], atol=tolerance)


def test_resampling_keeps_the_tone_and_the_length() -> None:
    pytest.importorskip("soxr")
    audio = waveform_of(TONE, RATE).resampled(44100)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44100) / 44100)
    assert len(audio.samples) == 44100
    np.testing.assert_allclose(audio.samples[2000:-2000], expected[2000:-2000], atol=1e-3)
    assert audio.resampled(44100) is audio


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(MissingDependencyError, match=r"soundfile.*executorch_mm\[audio\]"):
        load_audio(b"fLaC and more")
    with pytest.raises(MissingDependencyError, match=r"16000 to 8000 Hz.*soxr.*executorch_mm\[audio\]"):
        waveform_of(TONE, RATE).resampled(8000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_audio_input(TONE, sampling_rate=0), "sampling_rate: expected a positive int, got 0"),
        (lambda: make_audio_input(TONE, sampling_rate=1.5), "sampling_rate: expected a positive int"),
        (lambda: make_audio_input(TONE), r"expected shape \(num_clips, num_bins, num_frames\)"),
        (lambda: make_audio_input(np.zeros(0, np.float32), sampling_rate=RATE), "with samples"),
        (lambda: make_audio_input(np.zeros((2, 3, 4), np.float32), sampling_rate=RATE), "with samples, got"),
        (lambda: make_audio_input(np.zeros((20, 30)), sampling_rate=RATE), "at most 8 channels"),
        (
            lambda: make_audio_input(np.zeros(9, np.int64), sampling_rate=RATE),
            "or uint8, got int64",
        ),
        (lambda: make_audio_input(np.array([np.nan]), sampling_rate=RATE), "NaN"),
        (lambda: make_audio_input("no/such.wav"), "No such file"),
        (lambda: make_audio_input("https://a.example/x.wav"), "without a fetch function"),
        (lambda: make_audio_input(wav(INTEGERS[:0])), "with samples"),
    ],
)
def test_what_is_no_audio_is_an_input_error(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


def test_a_damaged_file_is_an_input_error() -> None:
    pytest.importorskip("soundfile")
    for data in (b"", b"RIFF", b"not an audio clip at all", wav(INTEGERS)[:30]):
        with pytest.raises(InputError, match="audio"):
            load_audio(data)


def test_the_filters_of_whispers_first_and_last_bins_are_where_the_mel_scale_puts_them() -> None:
    filters = mel_filters(80, 201, RATE)
    hz = np.arange(201) * 40
    # 0, 1, 2 of 81 steps to 45.245640 mels, 200 / 3 Hz a mel at the bottom
    corners = [step * 45.2456403785 / 81 * 200 / 3 for step in range(3)]
    expected = np.maximum(0, np.minimum(hz / corners[1], (corners[2] - hz) / (corners[2] - corners[1])))
    np.testing.assert_allclose(filters[:, 0], expected * 2 / corners[2], atol=1e-9)
    assert filters[-1, -1] == pytest.approx(0, abs=1e-12)
    assert (filters.sum(axis=0) > 0).all()


def test_a_long_audio_clip_is_several_chunks_with_one_common_range() -> None:
    quiet_then_loud = np.concatenate([np.full(30 * RATE, 1e-6, np.float32), np.tile(TONE, 2)])
    features = AudioProcessor(LogMelConfig())(quiet_then_loud, RATE)
    assert features.shape == (2, 80, 3000)
    assert features.dtype == np.float32
    assert features.max() - features.min() == pytest.approx(2)  # eight powers of ten, divided by four
    assert features[0, :, 100:2000].max() == pytest.approx(features.min())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"feature_extractor_type": "ClapFeatureExtractor", "top_db": 5},
            "ClapFeature.* is not.*top_db",
        ),
        ({"dither": 0.1}, "dither: expected 0"),
        ({"padding_side": "left"}, "padding_side: expected 'right'"),
        ({"do_normalize": True}, "keys not understood: do_normalize"),
        ({"hop_length": 0}, "hop_length: expected an int of 1 or more"),
        ({"hop_length": 7}, "hop_length: expected a length that divides a chunk"),
        ({"sampling_rate": 8000}, "sampling_rate: expected an int of 16000 or more"),
    ],
)
def test_what_is_not_understood_of_a_feature_extractor_is_named(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**WHISPER, **changes}))
    with pytest.raises(InputError, match=message):
        AudioProcessor.from_pretrained(tmp_path)
    with pytest.raises(InputError, match=message):
        Processor.from_pretrained(tmp_path)


def test_a_processor_reads_images_and_audio_from_wherever_the_files_put_them(tmp_path: Path) -> None:
    clip = {"image_processor_type": "CLIPImageProcessor"}
    video = {"video_processor_type": "OtherVideoProcessor", "frame_rate": 2}
    combined = {"image_processor": clip, "feature_extractor": WHISPER, "video_processor": video}

    def read(**files: object) -> Processor:
        for path in tmp_path.glob("*.json"):
            path.unlink()
        for name, content in files.items():
            (tmp_path / f"{name}_config.json").write_text(json.dumps(content))
        return Processor.from_pretrained(tmp_path)

    both = read(processor=combined)
    assert both.image is not None
    assert both.audio is not None
    with pytest.raises(InputError, match=r"OtherVideoProcessor is not supported.*frame_rate"):
        both.frames([np.zeros((5, 5, 3), np.uint8)])
    only_image = read(preprocessor=clip, processor={"processor_class": "X", "image_seq_len": 4})
    assert only_image.audio is None
    assert only_image.images([np.zeros((5, 5, 3), np.uint8)])[0].pixel_values.shape == (3, 224, 224)
    assert only_image.frames([np.zeros((5, 5, 3), np.uint8)] * 2)[1].original_size == (5, 5)
    with pytest.raises(InputError, match="describe no feature extractor"):
        only_image.audio_features(TONE, RATE)
    only_audio = read(preprocessor=WHISPER)
    assert only_audio.audio_features(TONE, RATE).shape == (1, 80, 3000)
    with pytest.raises(InputError, match="describe no image processor"):
        only_audio.images([np.zeros((5, 5, 3), np.uint8)])
    # processor_config.json goes before the part's own file
    other = {"image_processor_type": "SiglipImageProcessor"}
    newer = read(preprocessor=clip, processor={"image_processor": other})
    assert newer.images([np.zeros((5, 5, 3), np.uint8)])[0].pixel_values.max() == -1
    with pytest.raises(InputError, match=r"expected preprocessor_config\.json or processor_config\.json"):
        read()
    with pytest.raises(InputError, match="feature_extractor_type Other is not supported"):
        read(preprocessor={"feature_extractor_type": "Other"})


def test_an_audio_clip_for_a_model_that_takes_none_is_an_input_error(demo_folder: Path) -> None:
    models = Path(__file__).parents[2] / "models"
    with MultimodalRunner(models / "multimodal" / "llava.pte", demo_folder) as runner:
        with pytest.raises(InputError, match="audio: the model has no audio_encoder"):
            runner.prefill([make_audio_input(TONE, sampling_rate=RATE)])
        assert runner.position == 0


def test_an_audio_clip_longer_than_the_models_chunk_is_an_input_error(runner: MultimodalRunner) -> None:
    with pytest.raises(InputError, match="audio"):
        runner.prefill([make_audio_input(np.tile(TONE, 5), sampling_rate=RATE)])
    assert runner.position == 0


def encoder_of(folder: Path) -> PromptEncoder:
    """An encoder for a model that has an audio encoder and nothing else."""
    encoder = SimpleNamespace(values=SimpleNamespace(shape=(10, 128, 3000)))
    contract = SimpleNamespace(audio_encoder=encoder, audio_transform=None, is_joint=False)
    return PromptEncoder(contract, None, None, [folder])  # type: ignore[arg-type]


def test_the_runner_makes_features_of_an_audio_clip_as_the_models_files_say(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**WHISPER, "feature_size": 128}))
    part = make_audio_input(wav(INTEGERS))
    [prepared] = encoder_of(tmp_path).encode([part], GenerationConfig(), is_start=False)
    assert isinstance(part.value, Waveform)
    expected = AudioProcessor.from_pretrained(tmp_path)(part.value)
    assert expected.shape == (1, 128, 3000)
    given = np.ctypeslib.as_array((ctypes.c_float * expected.size).from_address(prepared.address))
    np.testing.assert_array_equal(given, expected.ravel())


def test_an_audio_clip_without_files_that_say_how_to_make_features_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no preprocessor_config\.json or processor_config\.json was found"):
        encoder_of(tmp_path).encode([make_audio_input(wav(INTEGERS))], GenerationConfig(), is_start=False)


def test_an_audio_clip_is_an_input_with_a_short_name() -> None:
    part = make_audio_input(Waveform(TONE, RATE))
    assert part.kind == "waveform"
    assert repr(part) == "MultimodalInput(type=waveform, Waveform(num_samples=16000, sampling_rate=16000))"


@pytest.mark.parametrize("bins", [80, 128])
def test_features_are_made_by_the_thread_that_asks_for_them(bins: int) -> None:
    processor = AudioProcessor(LogMelConfig(bins=bins))
    clip = np.sin(np.arange(16000) / 7, dtype=np.float32)
    processor(clip, sampling_rate=16000)
    of_all, own = time.process_time(), time.thread_time()
    for _ in range(5):
        processor(clip, sampling_rate=16000)
        time.sleep(0.02)  # threads of a library would look for more work
    own = time.thread_time() - own
    assert time.process_time() - of_all < 1.2 * own
