"""Upstream's inputs: `Image`, `Audio`, `RawAudio`, `MultimodalInput` and what makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

import executorch_mm.inputs as ours
from executorch_mm import media
from executorch_mm.arrays import AnyArray, to_numpy

if TYPE_CHECKING:
    from typing_extensions import Self

BlockT = TypeVar("BlockT", media.Image, media.Audio, media.RawAudio)


class _Block(Generic[BlockT]):
    """Numbers in three axes that come out as lists."""

    __slots__ = ("block",)

    block: BlockT

    @classmethod
    def of(cls, block: BlockT) -> Self:
        """Wraps a block; nothing is copied."""
        wrapped = cls.__new__(cls)
        wrapped.block = block
        return wrapped

    def is_uint8(self) -> bool:
        """Whether it holds bytes."""
        return self.block.is_uint8()

    def is_float(self) -> bool:
        """Whether it holds floats."""
        return self.block.is_float()

    @property
    def uint8_data(self) -> list[int]:
        """The bytes in a row.

        Raises:
            InputError: It holds floats.
        """
        numbers: list[int] = self.block.uint8_data.tolist()
        return numbers

    @property
    def float_data(self) -> list[float]:
        """The floats in a row.

        Raises:
            InputError: It holds bytes.
        """
        numbers: list[float] = self.block.float_data.astype(np.float64).tolist()
        return numbers


class Image(_Block[media.Image]):
    """A picture, channels first.

    Args:
        data: Bytes in 0..255 or floats, (channels, height, width) in a row.
        width: In pixels.
        height: In pixels.
        channels: 3 (RGB) or 4 (RGBA), or 1 (grey).

    Raises:
        InputError: The numbers are not as many as the size says, or of another kind.
    """

    __slots__ = ()

    def __init__(self, data: Sequence[int] | Sequence[float], width: int, height: int, channels: int) -> None:
        self.block: media.Image = media.Image(data, width, height, channels)

    @property
    def width(self) -> int:
        """In pixels."""
        return self.block.width

    @property
    def height(self) -> int:
        """In pixels."""
        return self.block.height

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.block.channels

    def __repr__(self) -> str:
        size = f"height={self.height} width={self.width} channels={self.channels}"
        return f"<Image {size} dtype={self.block.array.dtype}>"


class Audio(_Block[media.Audio]):
    """Features of sounds.

    Args:
        data: Bytes or floats, (batch_size, n_bins, n_frames) in a row.
        batch_size: Number of clips.
        n_bins: Features in a frame.
        n_frames: Frames in a clip.

    Raises:
        InputError: The numbers are not as many as the sizes say, or of another kind.
    """

    __slots__ = ()

    def __init__(
        self, data: Sequence[int] | Sequence[float], batch_size: int, n_bins: int, n_frames: int
    ) -> None:
        self.block: media.Audio = media.Audio(data, batch_size, n_bins, n_frames)

    @property
    def batch_size(self) -> int:
        """Number of clips."""
        return self.block.batch_size

    @property
    def n_bins(self) -> int:
        """Features in a frame."""
        return self.block.n_bins

    @property
    def n_frames(self) -> int:
        """Frames in a clip."""
        return self.block.n_frames

    def __repr__(self) -> str:
        size = f"batch_size={self.batch_size} n_bins={self.n_bins} n_frames={self.n_frames}"
        return f"<Audio {size} dtype={self.block.array.dtype}>"


class RawAudio(_Block[media.RawAudio]):
    """Samples for a model that computes the features itself.

    Args:
        data: Bytes, (batch_size, n_channels, n_samples) in a row.
        batch_size: Number of clips.
        n_channels: Channels of a clip.
        n_samples: Samples in a channel.

    Raises:
        InputError: The numbers are not as many as the sizes say, or of another kind.
    """

    __slots__ = ()

    def __init__(self, data: Sequence[int], batch_size: int, n_channels: int, n_samples: int) -> None:
        self.block: media.RawAudio = media.RawAudio(data, batch_size, n_channels, n_samples)

    @property
    def data(self) -> list[int]:
        """All samples in a row."""
        return self.uint8_data

    @property
    def batch_size(self) -> int:
        """Number of clips."""
        return self.block.batch_size

    @property
    def n_channels(self) -> int:
        """Channels of a clip."""
        return self.block.n_channels

    @property
    def n_samples(self) -> int:
        """Samples in a channel."""
        return self.block.n_samples

    def __repr__(self) -> str:
        size = f"batch_size={self.batch_size} n_channels={self.n_channels} n_samples={self.n_samples}"
        return f"<RawAudio {size}>"


class MultimodalInput:
    """One part of a prompt.

    Args:
        value: A text, token ids, an `Image`, an `Audio` or a `RawAudio`; or one of these by its name.
        text: A text.
        tokens: Token ids.
        image: A picture.
        audio: Features of sounds.
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
        plain = given[0].block if isinstance(given[0], (Image, Audio, RawAudio)) else given[0]
        self.part = ours.MultimodalInput(plain)

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
        """Whether it is a picture."""
        return self.part.is_image()

    def is_audio(self) -> bool:
        """Whether it is features of sounds."""
        return self.part.is_audio()

    def is_raw_audio(self) -> bool:
        """Whether it is samples."""
        return self.part.is_raw_audio()

    def get_text(self) -> str | None:
        """The text, or None if it is something else."""
        return self.part.get_text()

    def get_tokens(self) -> list[int] | None:
        """The token ids, or None if it is something else."""
        tokens = self.part.get_tokens()
        return None if tokens is None else tokens.tolist()

    def get_image(self) -> Image | None:
        """The picture, or None if it is something else."""
        image = self.part.get_image()
        return None if image is None else Image.of(image)

    def get_audio(self) -> Audio | None:
        """The features, or None if it is something else."""
        audio = self.part.get_audio()
        return None if audio is None else Audio.of(audio)

    def get_raw_audio(self) -> RawAudio | None:
        """The samples, or None if it is something else."""
        raw_audio = self.part.get_raw_audio()
        return None if raw_audio is None else RawAudio.of(raw_audio)

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


def make_image_input(image_tensor: ours.ArrayLike) -> MultimodalInput:
    """A picture, copied, so that the tensor may be used for the next one.

    Args:
        image_tensor: torch tensor on the CPU, numpy array, or anything else with `__dlpack__` or the buffer
            protocol; (height, width, channels) or (channels, height, width), or one such in a batch. uint8 in
            0..255, or floats.

    Raises:
        InputError: Wrong rank, channel number or dtype, or an empty picture.
    """
    return MultimodalInput.of(ours.make_image_input(_copy(image_tensor, "image")))


def make_audio_input(audio_tensor: ours.ArrayLike) -> MultimodalInput:
    """Features of sounds, copied.

    Args:
        audio_tensor: Array as in `make_image_input` of shape (batch_size, n_bins, n_frames), uint8 or floats.

    Raises:
        InputError: Wrong rank or dtype, or an empty array.
    """
    return MultimodalInput.of(ours.make_audio_input(_copy(audio_tensor, "audio")))


def make_raw_audio_input(audio_tensor: ours.ArrayLike) -> MultimodalInput:
    """Samples, copied.

    Args:
        audio_tensor: Array as in `make_image_input` of shape (batch_size, n_channels, n_samples), uint8 or
            floats.

    Raises:
        InputError: Wrong rank or dtype, or an empty array.
    """
    return MultimodalInput.of(ours.make_raw_audio_input(_copy(audio_tensor, "raw audio")))


def _copy(tensor: ours.ArrayLike, what: str) -> AnyArray:
    return np.array(to_numpy(tensor, what))
