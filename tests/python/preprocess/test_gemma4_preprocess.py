"""Images and clips prepared for Gemma 4 as by transformers (tools/fixtures/gemma4/make_golden.py)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import InputError
from executorch_mm.preprocess import AudioProcessor, FrameConfig, ImageProcessor
from executorch_mm.preprocess.gemma4 import PlacedPatches
from golden_sources import RATE, golden_audio, golden_image, sampled_positions

DATA = Path(__file__).parents[2] / "data" / "preprocess"
GOLDEN = np.load(DATA / "gemma4.npz")
CONFIGS = json.loads((DATA / "gemma4.json").read_text(encoding="utf-8"))
CASES = sorted({name.rpartition("/")[0] for name in GOLDEN.files})


def write_config(name: str, folder: Path, **changes: object) -> Path:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**CONFIGS[name], **changes}))
    return path


def compare(values: np.ndarray, case: str, tolerance: float) -> None:
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    assert values.shape == tuple(GOLDEN[f"{case}/shape"])
    sampled = values.reshape(-1)[sampled_positions(values.size)]
    np.testing.assert_allclose(sampled, GOLDEN[f"{case}/values"], rtol=1e-5, atol=tolerance)
    means = values.mean(-1, dtype=np.float64)[:512]
    np.testing.assert_allclose(means, GOLDEN[f"{case}/means"], rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("image")])
def test_an_image_has_the_patches_and_places_of_the_pillow_processor(case: str, tmp_path: Path) -> None:
    name, source = case.split("/")
    mode, size = source.split(" ")
    height, width = map(int, size.split("x"))
    processor = ImageProcessor.from_pretrained(write_config(name, tmp_path))
    prepared = processor.prepare(golden_image(mode, height, width))
    compare(prepared.pixel_values, case, 2e-6)
    assert prepared.positions is not None
    assert prepared.positions.dtype == np.int64
    np.testing.assert_array_equal(prepared.positions, GOLDEN[f"{case}/positions"])
    assert isinstance(processor.config, PlacedPatches)
    assert len(prepared.pixel_values) == processor.config.pool**2 * int(GOLDEN[f"{case}/tokens"])


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("audio")])
def test_a_clip_has_the_frames_of_the_feature_extractor(case: str, tmp_path: Path) -> None:
    name, source = case.split("/")
    processor = AudioProcessor.from_pretrained(write_config(name, tmp_path))
    [frames] = processor(golden_audio(source), RATE)
    # transformers computes the spectrum in float32, whose rounding shows near a low floor.
    compare(frames, case, 2e-2 if name == "audio gemma4-other" else 2e-4)


def test_a_second_has_99_frames_and_25_tokens_as_the_processor_counts() -> None:
    # Two convolutions of stride 2 make a row of every fourth frame.
    assert FrameConfig().frames(golden_audio("noise 1")).shape == (99, 128)
    assert int(GOLDEN["audio gemma4/noise 1/tokens"]) == 25 == -(-99 // 4)


def test_an_encoder_of_fewer_patches_gets_an_image_of_fewer_tokens(tmp_path: Path) -> None:
    steps = ImageProcessor.from_pretrained(write_config("image gemma4", tmp_path)).config
    assert isinstance(steps, PlacedPatches)
    assert steps.within(2520) is steps
    assert [steps.within(patches).max_tokens for patches in (2519, 1260, 630)] == [140, 140, 70]
    with pytest.raises(InputError, match="takes 629 patches, expected 630 or more"):
        steps.within(629)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_soft_tokens": 100}, "max_soft_tokens: expected one of 70, 140"),
        ({"patch_size": 0}, "patch_size: expected an int of 1"),
        ({"merge_size": 2}, "keys not understood: merge_size"),
    ],
)
def test_a_wrong_image_configuration_is_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        ImageProcessor.from_pretrained(write_config("image gemma4", tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dither": 0.1}, "dither: expected 0"),
        ({"padding_side": "left"}, "padding_side: expected 'right'"),
        ({"hop_length_ms": 0.0001}, "hop_length_ms: expected frames"),
        ({"feature_size": 2**20}, "expected"),
        ({"max_frequency": 9000.0}, "max_frequency: expected more than"),
        ({"mel_floor": 0.0}, "mel_floor: expected more than 0"),
        ({"per_bin_mean": [1.0]}, "per_bin_mean: expected 128 finite numbers"),
        ({"per_bin_stddev": [0.0] * 128}, "per_bin_stddev: expected numbers other than 0"),
    ],
)
def test_a_wrong_audio_configuration_is_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        AudioProcessor.from_pretrained(write_config("audio gemma4", tmp_path, **changes))


@pytest.mark.parametrize("count", [1, 160, 30 * RATE + 1])
def test_a_clip_without_a_frame_or_too_long_is_refused(count: int) -> None:
    with pytest.raises(InputError, match="expected 161 to 480000 samples"):
        FrameConfig().frames(np.zeros(count, np.float32))
