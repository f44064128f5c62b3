"""Upstream's `MultimodalInput` and what makes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

import executorch_mm as ours
from executorch_mm.arrays import AnyArray, SupportsDLPack, is_pil_image, to_numpy
from executorch_mm.compat.executorch.media import Audio, Image, RawAudio

ArrayLike: TypeAlias = "AnyArray | SupportsDLPack"


class MultimodalInput:
    """One part of a prompt.

    Args:
        value: A text, token ids, an `Image`, an `Audio` or a `RawAudio`; or one of these by its name.
        text: A text.
        tokens: Token ids.
        image: An image.
        audio: Features of audio.
        raw_audio: Samples.

    Attributes:
        part: The same as `executorch_mm.MultimodalInput`.

    Raises:
        InputError: The value is none of these, or not a valid one.
        TypeError: There is not one value but none or several.
    """

    __slots__ = ("part",)

    part: ours.MultimodalInput

    def __init__(
        self,
        value: str | Sequence[int] | Image | Audio | RawAudio | None = None,
        /,
        *,
        text: str | None = None,
        tokens: Sequence[int] | None = None,
        image: Image | None = None,
        audio: Audio | None = None,
        raw_audio: RawAudio | None = None,
    ) -> None:
        given = [it for it in (value, text, tokens, image, audio, raw_audio) if it is not None]
        if len(given) != 1:
            raise TypeError(f"MultimodalInput: expected one value, got {len(given)}")
        self.part = _part(given[0])

    @classmethod
    def of(cls, part: ours.MultimodalInput) -> MultimodalInput:
        """Wraps an `executorch_mm.MultimodalInput`; nothing is copied."""
        wrapped = cls.__new__(cls)
        wrapped.part = part
        return wrapped

    def is_text(self) -> bool:
        """Whether it is a text."""
        return self.part.is_text()

    def is_tokens(self) -> bool:
        """Whether it is token ids."""
        return self.part.is_tokens()

    def is_image(self) -> bool:
        """Whether it is an image."""
        return self.part.is_image()

    def is_audio(self) -> bool:
        """Whether it is features of audio."""
        return self.part.kind == "audio"

    def is_raw_audio(self) -> bool:
        """Whether it is samples."""
        return self.part.kind == "raw_audio"

    def get_text(self) -> str | None:
        """The text, or None if it is something else."""
        value = self.part.value
        return value if isinstance(value, str) else None

    def get_tokens(self) -> list[int] | None:
        """The token ids, or None if it is something else."""
        array = self._array_of("tokens")
        return None if array is None else array.tolist()

    def get_image(self) -> Image | None:
        """The image, or None if it is something else or cut into tiles."""
        if is_pil_image(self.part.value):
            from executorch_mm.preprocess import image_to_hwc_uint8

            return Image.of(image_to_hwc_uint8(self.part.value).transpose(2, 0, 1))
        array = self._array_of("image")
        return None if array is None or array.ndim == 4 else Image.of(array)

    def get_audio(self) -> Audio | None:
        """The features, or None if it is something else."""
        array = self._array_of("audio")
        return None if array is None else Audio.of(array)

    def get_raw_audio(self) -> RawAudio | None:
        """The samples, or None if it is something else."""
        array = self._array_of("raw_audio")
        return None if array is None else RawAudio.of(array)

    def _array_of(self, kind: str) -> AnyArray | None:
        value = self.part.value
        return value if self.part.kind == kind and isinstance(value, np.ndarray) else None

    def __repr__(self) -> str:
        text = self.get_text()
        if text is None:
            return f"<MultimodalInput type={self.part.kind}>"
        return f'<MultimodalInput type=text content="{text[:50]}{"..." if len(text) > 50 else ""}">'


def make_text_input(text: str) -> MultimodalInput:
    """A text; special tokens written in it are recognised.

    Args:
        text: Any string.

    Raises:
        InputError: `text` is not a string.
    """
    return MultimodalInput.of(ours.make_text_input(text))


def make_token_input(tokens: Sequence[int]) -> MultimodalInput:
    """Token ids, used as they are.

    Args:
        tokens: Ids, a sequence of ints or an integer array of shape (num_tokens,).

    Raises:
        InputError: Something else than non-negative ints, or more than one dimension.
    """
    return MultimodalInput.of(ours.make_token_input(tokens))


def make_image_input(image_tensor: ArrayLike) -> MultimodalInput:
    """An image, copied, so that the tensor may be used for the next one.

    Args:
        image_tensor: torch tensor on the CPU, numpy array, or anything else with `__dlpack__` or the buffer
            protocol; (height, width, channels) or (channels, height, width), or one such in a batch. uint8 in
            0..255, or floats.

    Raises:
        InputError: Wrong rank, channel number or dtype, or an empty image.
    """
    return MultimodalInput.of(ours.make_image_input(_copy(image_tensor, "image")))


def make_audio_input(audio_tensor: ArrayLike) -> MultimodalInput:
    """Features of audio, copied.

    Args:
        audio_tensor: Array as in `make_image_input` of shape (batch_size, n_bins, n_frames), uint8 or floats.

    Raises:
        InputError: Wrong rank or dtype, or an empty array.
    """
    return MultimodalInput.of(ours.make_audio_input(_copy(audio_tensor, "audio")))


def make_raw_audio_input(audio_tensor: ArrayLike) -> MultimodalInput:
    """Samples, copied.

    Args:
        audio_tensor: Array as in `make_image_input` of shape (batch_size, n_channels, n_samples), uint8 or
            floats.

    Raises:
        InputError: Wrong rank or dtype, or an empty array.
    """
    return MultimodalInput.of(ours.make_raw_audio_input(_copy(audio_tensor, "raw audio")))


def _copy(tensor: ArrayLike, what: str) -> AnyArray:
    return np.array(to_numpy(tensor, what))


def _part(value: str | Sequence[int] | Image | Audio | RawAudio) -> ours.MultimodalInput:
    if isinstance(value, Image):
        return ours.make_image_input(value.array, layout="CHW")
    if isinstance(value, Audio):
        return ours.make_audio_input(value.array)
    if isinstance(value, RawAudio):
        return ours.make_raw_audio_input(value.array)
    return ours.MultimodalInput(value)
