"""Torch tensors whose sign is only noted: every kind of array input reads the values that torch prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from executorch_mm import (
    GenerationConfig,
    InputError,
    MultimodalInput,
    make_audio_input,
    make_embedding_input,
    make_image_input,
    make_image_inputs,
    make_raw_audio_input,
    make_token_input,
)
from executorch_mm.arrays import to_numpy
from executorch_mm.compat import executorch as compat
from executorch_mm.preprocess import ImageConfig, ImageProcessor, image_to_hwc_uint8
from executorch_mm.preprocess.audio import to_waveform
from executorch_mm.sampling import Sampler

pytestmark = pytest.mark.torch

VALUES = (
    np.random.default_rng(0).random((3, 5, 6)).astype(np.float32)
)  # 0..1: the other sign is an error, or other
Lazy = Callable[[np.ndarray[Any, Any]], Any]


def imaginary_part(values: np.ndarray[Any, Any]) -> Any:
    """As a spectrum's would be: a view of complex numbers with its sign noted."""
    import torch

    given = torch.from_numpy(np.ascontiguousarray(-values))
    return torch.complex(torch.zeros_like(given), given).conj().imag


def negated_view(values: np.ndarray[Any, Any]) -> Any:
    import torch

    return torch._neg_view(torch.from_numpy(np.ascontiguousarray(-values)))


def with_gradient(values: np.ndarray[Any, Any]) -> Any:
    lazy = imaginary_part(values)
    return lazy.requires_grad_()


def value_of(part: MultimodalInput) -> np.ndarray[Any, Any]:
    value = part.value
    assert isinstance(value, np.ndarray)
    return value


def frames(tensor: Any) -> np.ndarray[Any, Any]:
    [prepared] = ImageProcessor(ImageConfig()).prepare_frames(tensor[None], layout="CHW")
    return prepared.pixel_values


KINDS: dict[str, tuple[Callable[[Any], Any], np.ndarray[Any, Any]]] = {
    "to_numpy": (lambda tensor: to_numpy(tensor, "array"), VALUES),
    "image input": (lambda tensor: value_of(make_image_input(tensor, layout="CHW")), VALUES),
    "image inputs": (lambda tensor: value_of(make_image_inputs(tensor[None], layout="CHW")[0]), VALUES),
    "list of images": (lambda tensor: value_of(make_image_inputs([tensor], layout="CHW")[0]), VALUES),
    "tiles": (lambda tensor: value_of(make_image_input(tensor.expand(2, 3, 5, 6)))[1], VALUES),
    "image": (lambda tensor: image_to_hwc_uint8(tensor), np.rint(VALUES * 255).transpose(1, 2, 0)),
    "frames": (lambda tensor: np.rint(frames(tensor) * 255), np.rint(VALUES * 255)),
    "features": (lambda tensor: value_of(make_audio_input(tensor)), VALUES),
    "raw audio": (lambda tensor: value_of(make_raw_audio_input(tensor)), VALUES),
    "audio": (lambda tensor: to_waveform(tensor[0], 16_000).samples, VALUES[0].mean(0)),
    "embeddings": (lambda tensor: value_of(make_embedding_input(tensor[0])), VALUES[0]),
    "Image": (lambda tensor: compat.Image(tensor, 6, 5, 3).array, VALUES),
    "Audio": (lambda tensor: compat.Audio(tensor, 3, 5, 6).array, VALUES),
    "RawAudio": (lambda tensor: compat.RawAudio(tensor, 3, 5, 6).array, VALUES),
    "upstream's image": (lambda tensor: value_of(compat.make_image_input(tensor).part), VALUES),
    "upstream's audio": (lambda tensor: value_of(compat.make_audio_input(tensor).part), VALUES),
    "logits": (
        lambda tensor: Sampler(GenerationConfig(temperature=1.0)).probabilities(tensor[0, 0].contiguous()),
        np.exp(VALUES[0, 0].astype(np.float64)) / np.exp(VALUES[0, 0].astype(np.float64)).sum(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("lazy", [imaginary_part, negated_view, with_gradient])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sign_that_is_only_noted_counts(kind: str, lazy: Lazy) -> None:
    read, expected = KINDS[kind]
    tensor = lazy(VALUES)
    assert tensor.is_neg()
    np.testing.assert_allclose(tensor.detach().resolve_neg().numpy(), VALUES)
    np.testing.assert_allclose(read(tensor), expected, rtol=1e-6)
    assert tensor.is_neg()  # the caller's is as it was


def test_complex_numbers_are_resolved_and_then_no_input() -> None:
    import torch

    numbers = torch.tensor([[[1 + 2j, 3 - 4j]]]).conj()
    assert numbers.is_conj()
    np.testing.assert_array_equal(to_numpy(numbers, "array"), [[[1 - 2j, 3 + 4j]]])
    for make in (make_image_input, lambda array: compat.Image(array, 2, 1, 1)):
        with pytest.raises(InputError, match="complex64"):
            make(numbers)


def test_unsigned_integers_of_sixteen_bits_are_images() -> None:
    import torch

    samples = np.random.default_rng(1).integers(0, 65536, (3, 5, 6), dtype=np.uint16)
    expected = np.floor(samples.astype(np.int64) * 255 / 65535 + 0.5)  # PNG, 13.12
    tensor = torch.from_numpy(samples)
    assert tensor.dtype == torch.uint16
    np.testing.assert_array_equal(value_of(make_image_input(tensor)), expected)
    np.testing.assert_array_equal(image_to_hwc_uint8(tensor), expected.transpose(1, 2, 0))
    np.testing.assert_array_equal(
        image_to_hwc_uint8(tensor.permute(1, 2, 0), layout="HWC"), expected.transpose(1, 2, 0)
    )


def test_tokens_may_be_tensors_and_other_numbers_are_refused() -> None:
    import torch

    assert make_token_input(torch.tensor([3, 1, 2])).value.tolist() == [3, 1, 2]  # type: ignore[union-attr]
    for wrong in (
        imaginary_part(VALUES[0, 0]),
        torch.tensor([1, 2], device="meta"),
        torch.zeros(2).to_sparse(),
    ):
        with pytest.raises(InputError, match="tokens: expected"):
            make_token_input(wrong)
