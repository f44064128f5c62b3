"""What `make_*_input` takes, upstream's constructors and methods, and that what is given back is a view."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from executorch_mm import (
    InputError,
    MediaLimits,
    MultimodalInput,
    make_audio_input,
    make_embedding_input,
    make_image_input,
    make_image_inputs,
    make_raw_audio_input,
    make_text_input,
    make_token_input,
)
from executorch_mm.arrays import to_numpy
from executorch_mm.preprocess import image_to_hwc_uint8

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def png(pixels: np.ndarray = RGB) -> bytes:
    file = io.BytesIO()
    PILImage.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pixels_of(part: MultimodalInput) -> np.ndarray:
    return image_to_hwc_uint8(part.value)


def test_an_image_may_be_a_path_bytes_a_data_uri_or_a_url_with_a_fetch_function(tmp_path: Path) -> None:
    path = tmp_path / "an image.png"
    path.write_bytes(png())
    encoded = base64.b64encode(png()).decode()
    wrapped = "\n".join(encoded[start : start + 60] for start in range(0, len(encoded), 60))
    percent = "".join(f"%{byte:02X}" for byte in png())
    sources = [path, str(path), png(), bytearray(png()), f"data:image/png;base64,{encoded}"]
    sources += [f"data:image/png;base64,{wrapped}", f"data:image/png,{percent}"]
    for source in sources:
        np.testing.assert_array_equal(pixels_of(make_image_input(source)), RGB)
    asked: list[str] = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return png()

    part = make_image_input("https://images.example/x.png", fetch=fetch)
    np.testing.assert_array_equal(pixels_of(part), RGB)
    assert asked == ["https://images.example/x.png"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("http://images.example/x.png", "nothing is downloaded without a fetch function"),
        ("data:image/png;base64", "expected data:<type>;base64,<data>"),
        ("data:image/png;base64,***", "expected base64"),
        ("data:image/png;base64,aGVsbG8=", "image in a data URI: not an image"),
        (b"", "image of 0 bytes: not an image"),
        (png()[:60], "image of 60 bytes: "),
        ("no/such.png", r"image no/such\.png: No such file"),
        (Path("no/such.png"), r"image no/such\.png: No such file"),
        ("nul\0byte", "image nul.byte: "),
        (5, "expected a numpy array"),
    ],
)
def test_a_source_that_is_no_image_is_an_input_error(source: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_image_input(source)  # type: ignore[arg-type]


def test_a_fetch_function_must_return_bytes() -> None:
    with pytest.raises(InputError, match="expected bytes, got str"):
        make_image_input("https://a.example/", fetch=lambda url: url)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("edge", [13_000, 100_000])
def test_a_file_of_few_bytes_that_claims_many_pixels_is_refused(edge: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    with pytest.raises(InputError, match=r"bomb|pixels"):
        make_image_input(bomb)


def test_the_limit_holds_when_pillows_own_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PILImage, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr("executorch_mm.preprocess.limits._in_force", MediaLimits(image_pixels=47))
    with pytest.raises(InputError, match="expected at most 47 pixels, got 8 x 6"):
        make_image_input(png())


def test_several_images_and_the_frames_of_a_video_are_one_input_each() -> None:
    frames = np.stack([RGB, 255 - RGB, RGB // 2])
    for images in (frames, list(frames), (frame for frame in frames), frames.transpose(0, 3, 1, 2)):
        parts = make_image_inputs(images)
        assert [part.kind for part in parts] == ["image"] * 3
        for part, frame in zip(parts, frames, strict=True):
            np.testing.assert_array_equal(pixels_of(part), frame)
    assert [part.kind for part in make_image_inputs([png(), PILImage.fromarray(RGB), RGB])] == ["image"] * 3
    for wrong in (RGB, "image.png", b"bytes", 5):
        with pytest.raises(InputError, match=r"images: expected a sequence of images"):
            make_image_inputs(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "strided",
    [
        np.repeat(np.repeat(RGB, 2, axis=0), 3, axis=1)[::2, ::3],
        RGB[::-1][::-1],
        np.asfortranarray(RGB),
        np.concatenate([RGB, RGB], axis=2)[:, :, :3],
        np.broadcast_to(RGB, (1, 6, 8, 3)),
    ],
    ids=["steps", "turned", "fortran", "inner", "broadcast"],
)
def test_any_strides_give_the_same_image(strided: np.ndarray) -> None:
    np.testing.assert_array_equal(pixels_of(make_image_input(strided, layout="HWC")), RGB)
    assert np.shares_memory(make_image_input(strided, layout="HWC").value, strided)


class OnDevice:
    """An array on a device of DLPack's numbers, with a trap where its memory would be read."""

    def __init__(self, device: int) -> None:
        self.device = device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, **options: object) -> object:
        raise AssertionError("read from a device")


@pytest.mark.parametrize(
    ("device", "name"), [(2, "CUDA"), (8, "Metal"), (10, "ROCm"), (99, "DLPack device 99")]
)
def test_an_array_on_a_device_is_refused_by_name(device: int, name: str) -> None:
    with pytest.raises(
        InputError, match=f"expected an array in the memory of the CPU, got OnDevice on {name}"
    ):
        make_image_input(OnDevice(device))  # type: ignore[arg-type]


def test_every_kind_answers_for_itself_only() -> None:
    floats = np.zeros((1, 2, 3), np.float32)
    parts = {
        "text": make_text_input("a"),
        "tokens": make_token_input([1, 2]),
        "image": make_image_input(RGB),
        "audio": make_audio_input(floats),
        "raw_audio": make_raw_audio_input(floats),
        "embeddings": make_embedding_input(floats[0]),
        "waveform": make_audio_input(np.zeros(5, np.float32), sampling_rate=8000),
    }
    for kind, part in parts.items():
        assert part.kind == kind
        for other in ("text", "tokens", "image"):
            assert getattr(part, f"is_{other}")() == (kind == other)


def test_audio_of_every_kind_is_audio_and_samples_are_raw() -> None:
    floats = np.zeros((1, 2, 3), np.float32)
    features = make_audio_input(floats)
    for_the_encoder = make_raw_audio_input(floats)
    for_features = make_audio_input(np.zeros(5, np.float32), sampling_rate=8000)
    assert [part.is_audio() for part in (features, for_the_encoder, for_features)] == [True, True, True]
    assert [part.is_raw_audio() for part in (features, for_the_encoder, for_features)] == [False, True, True]
    for other in (make_text_input("a"), make_token_input([1]), make_image_input(RGB)):
        assert not other.is_audio()
        assert not other.is_raw_audio()


def test_what_is_kept_is_the_callers_own_memory() -> None:
    tokens = np.array([3, 4], np.int64)
    features = np.zeros((1, 80, 10), np.float32)
    samples = np.zeros((1, 1, 10), np.uint8)
    assert np.shares_memory(make_token_input(tokens).value, tokens)  # type: ignore[arg-type]
    assert np.shares_memory(make_image_input(RGB).value, RGB)  # type: ignore[arg-type]
    assert np.shares_memory(make_audio_input(features).value, features)  # type: ignore[arg-type]
    assert np.shares_memory(make_raw_audio_input(samples).value, samples)  # type: ignore[arg-type]
    image = PILImage.fromarray(RGB)
    assert make_image_input(image).value is image


@pytest.mark.torch
def test_torch_tensors_are_views_of_their_memory() -> None:
    import torch

    tensor = torch.arange(6 * 8 * 3, dtype=torch.uint8).reshape(6, 8, 3)
    for view in (tensor, tensor.permute(2, 0, 1), tensor[None], tensor.permute(2, 0, 1)[None]):
        value = make_image_input(view).value
        assert isinstance(value, np.ndarray)
        assert value.ctypes.data == tensor.data_ptr()
        np.testing.assert_array_equal(value.transpose(1, 2, 0), tensor.numpy())
    half = torch.ones(3, 4, 5, dtype=torch.float16, requires_grad=True)
    assert to_numpy(half, "image").ctypes.data == half.data_ptr()
    with pytest.raises(InputError, match=r"BFloat16|bfloat16|dtype"):
        make_image_input(torch.ones(3, 4, 5, dtype=torch.bfloat16))
    with pytest.raises(InputError, match="Tensor"):
        make_image_input(torch.ones(3, 4, 5, device="meta"))
