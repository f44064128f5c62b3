"""Images and audio prepared as by transformers, which tools/fixtures/preprocess/make_golden.py asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from executorch_mm.preprocess import AudioProcessor, ImageConfig, ImageProcessor, Processor
from golden_sources import RATE, golden_audio, golden_image, sampled_positions

DATA = Path(__file__).parents[2] / "data" / "preprocess"
IMAGES = np.load(DATA / "images.npz")
AUDIO = np.load(DATA / "audio.npz")
CONFIGS = json.loads((DATA / "configs.json").read_text(encoding="utf-8"))
# The bytes are the same as the Pillow processors'; float32's last digits hang on the order of the steps.
EXACT = 2e-6
Golden: TypeAlias = "dict[str, np.ndarray]"


def cases(file: np.lib.npyio.NpzFile, kind: str) -> list[str]:
    names = {name.rpartition("/")[0] for name in file.files if "video" not in name}
    return sorted(name for name in names if name.startswith("fast ") == (kind == "fast"))


def processor_of(name: str, folder: Path) -> Processor:
    part = "video_processor" if name == "video" else "image_processor"
    content = {part: CONFIGS[name]} if name == "video" else CONFIGS[name]
    if name == "video":
        (folder / "preprocessor_config.json").write_text(json.dumps(CONFIGS["qwen2-vl"]))
    file = "processor_config.json" if name == "video" else "preprocessor_config.json"
    (folder / file).write_text(json.dumps(content))
    return Processor.from_pretrained(folder)


def compare(
    values: np.ndarray, golden: dict[str, np.ndarray], tolerance: float, mean_tolerance: float
) -> None:
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    # Whether one image stands in a batch of one is decided by the encoder's shape, not by the processor.
    assert values.shape[-3:] == tuple(golden["shape"][-3:])
    assert values.size == np.prod(golden["shape"])
    sampled = values.reshape(-1)[sampled_positions(values.size)]
    np.testing.assert_allclose(sampled, golden["values"], rtol=1e-6, atol=tolerance)
    means = values.reshape(*values.shape[:-2], -1).mean(-1, dtype=np.float64)
    np.testing.assert_allclose(means.ravel(), golden["means"].ravel(), rtol=1e-6, atol=mean_tolerance)


def stored(file: np.lib.npyio.NpzFile, case: str) -> dict[str, np.ndarray]:
    return {
        key: file[f"{case}/{key}"] for key in ("shape", "values", "means", "grid") if f"{case}/{key}" in file
    }


def step(config: object) -> float:
    """The largest difference that two neighbouring bytes can make."""
    normalize = config.normalize if hasattr(config, "normalize") else config.steps.normalize  # type: ignore[attr-defined]
    return float(normalize.scale_and_offset[0].max())


@pytest.mark.parametrize("case", cases(IMAGES, "exact"))
def test_an_image_is_prepared_as_by_the_pillow_processor(case: str, tmp_path: Path) -> None:
    name, source = case.split("/")
    mode, size = source.split(" ")
    height, width = map(int, size.split("x"))
    [prepared] = processor_of(name, tmp_path).images([golden_image(mode, height, width)])
    golden = stored(IMAGES, case)
    compare(prepared.pixel_values, golden, EXACT, EXACT)
    assert prepared.original_size == (height, width)
    if golden["grid"].size:
        assert prepared.grid == tuple(golden["grid"])


@pytest.mark.parametrize("case", cases(IMAGES, "fast"))
def test_an_image_is_within_one_step_of_the_torchvision_processor(case: str, tmp_path: Path) -> None:
    name, source = case.removeprefix("fast ").split("/")
    mode, size = source.split(" ")
    height, width = map(int, size.split("x"))
    processor = processor_of(name, tmp_path)
    [prepared] = processor.images([golden_image(mode, height, width)])
    assert processor.image is not None
    one = step(processor.image.config)
    compare(prepared.pixel_values, stored(IMAGES, case), 1.01 * one, 0.05 * one)


def test_frames_of_a_video_are_cut_as_by_the_video_processor(tmp_path: Path) -> None:
    processor = processor_of("video", tmp_path)
    frames = [golden_image(mode, 60, 80).convert("RGB") for mode in ("RGB", "CMYK", "RGB")]
    [prepared] = processor.frames(frames)
    golden = stored(IMAGES, "fast video/RGB 60x80")
    compare(prepared.pixel_values, golden, 1.01 / 255 / 0.26, 0.05 / 255 / 0.26)
    assert prepared.grid == tuple(golden["grid"])


@pytest.mark.parametrize("case", cases(AUDIO, "exact"))
def test_an_audio_clip_has_the_features_of_whispers_extractor(case: str, tmp_path: Path) -> None:
    bins, name = case.split("/")
    config = json.loads((DATA / "whisper.json").read_text(encoding="utf-8"))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**config, "feature_size": int(bins)}))
    features = AudioProcessor.from_pretrained(tmp_path)(golden_audio(name), RATE)
    compare(features, stored(AUDIO, case), 1e-4, 1e-5)


def test_the_tests_would_see_another_filter_and_another_order_of_channels(tmp_path: Path) -> None:
    image = golden_image("RGB", 37, 61)
    golden = stored(IMAGES, "clip/RGB 37x61")
    wrong = [{"resample": 2}, {"do_flip_channel_order": True}, {"crop_size": {"height": 223, "width": 224}}]
    for changes in wrong:
        path = tmp_path / "preprocessor_config.json"
        path.write_text(json.dumps({**CONFIGS["clip"], **changes}))
        processor = ImageProcessor.from_pretrained(path)
        assert isinstance(processor.config, ImageConfig)
        with pytest.raises(AssertionError):
            compare(processor(image), golden, EXACT, EXACT)
