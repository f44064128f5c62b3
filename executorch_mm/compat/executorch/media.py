"""Upstream's `Image`, `Audio` and `RawAudio`: three axes of numbers, which come out as lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypeVar

import numpy as np

from executorch_mm.arrays import AnyArray, SupportsDLPack, to_numpy
from executorch_mm.errors import InputError

Numbers: TypeAlias = "Sequence[int] | Sequence[float] | AnyArray | SupportsDLPack"
BlockT = TypeVar("BlockT", bound="_Block")


class _Block:
    """Three axes of bytes or floats.

    Attributes:
        array: The numbers in their axes.
    """

    __slots__ = ("array",)

    array: AnyArray

    @classmethod
    def of(cls: type[BlockT], array: AnyArray) -> BlockT:
        """Wraps an array of three axes; nothing is copied."""
        block = cls.__new__(cls)
        block.array = array
        return block

    def is_uint8(self) -> bool:
        """Whether it holds bytes."""
        return bool(self.array.dtype == np.uint8)

    def is_float(self) -> bool:
        """Whether it holds floats."""
        return bool(np.issubdtype(self.array.dtype, np.floating))

    @property
    def uint8_data(self) -> list[int]:
        """The bytes in a row.

        Raises:
            InputError: It holds floats.
        """
        if not self.is_uint8():
            raise InputError(f"uint8_data: expected uint8, got {self.array.dtype}")
        numbers: list[int] = self.array.reshape(-1).tolist()
        return numbers

    @property
    def float_data(self) -> list[float]:
        """The floats in a row.

        Raises:
            InputError: It holds bytes.
        """
        if not self.is_float():
            raise InputError(f"float_data: expected floats, got {self.array.dtype}")
        numbers: list[float] = self.array.reshape(-1).astype(np.float64).tolist()
        return numbers


class Image(_Block):
    """An image, channels first.

    Args:
        data: Bytes in 0..255 or floats, (channels, height, width) in a row.
        width: In pixels.
        height: In pixels.
        channels: 3 (RGB) or 4 (RGBA), or 1 (grey).

    Raises:
        InputError: The numbers are not as many as the size says, or of another kind.
    """

    __slots__ = ()

    def __init__(self, data: Numbers, width: int, height: int, channels: int) -> None:
        self.array: AnyArray = _block(data, (channels, height, width), "image")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.array.shape[0])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.array.shape[1])

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.array.shape[2])

    def __repr__(self) -> str:
        size = f"height={self.height} width={self.width} channels={self.channels}"
        return f"<Image {size} dtype={self.array.dtype}>"


class Audio(_Block):
    """Features of audio.

    Args:
        data: Bytes or floats, (batch_size, n_bins, n_frames) in a row.
        batch_size: Number of clips.
        n_bins: Features in a frame.
        n_frames: Frames in a clip.

    Raises:
        InputError: The numbers are not as many as the sizes say, or of another kind.
    """

    __slots__ = ()

    def __init__(self, data: Numbers, batch_size: int, n_bins: int, n_frames: int) -> None:
        self.array: AnyArray = _block(data, (batch_size, n_bins, n_frames), "audio")

    @property
    def batch_size(self) -> int:
        """Number of clips."""
        return int(self.array.shape[0])

    @property
    def n_bins(self) -> int:
        """Features in a frame."""
        return int(self.array.shape[1])

    @property
    def n_frames(self) -> int:
        """Frames in a clip."""
        return int(self.array.shape[2])

    def __repr__(self) -> str:
        size = f"batch_size={self.batch_size} n_bins={self.n_bins} n_frames={self.n_frames}"
        return f"<Audio {size} dtype={self.array.dtype}>"


class RawAudio(_Block):
    """Samples for a model that computes the features itself.

    Args:
        data: Bytes or floats, (batch_size, n_channels, n_samples) in a row.
        batch_size: Number of clips.
        n_channels: Channels of a clip.
        n_samples: Samples in a channel.

    Raises:
        InputError: The numbers are not as many as the sizes say, or of another kind.
    """

    __slots__ = ()

    def __init__(self, data: Numbers, batch_size: int, n_channels: int, n_samples: int) -> None:
        self.array: AnyArray = _block(data, (batch_size, n_channels, n_samples), "raw audio")

    @property
    def data(self) -> list[int]:
        """All samples in a row."""
        return self.uint8_data

    @property
    def batch_size(self) -> int:
        """Number of clips."""
        return int(self.array.shape[0])

    @property
    def n_channels(self) -> int:
        """Channels of a clip."""
        return int(self.array.shape[1])

    @property
    def n_samples(self) -> int:
        """Samples in a channel."""
        return int(self.array.shape[2])

    def __repr__(self) -> str:
        size = f"batch_size={self.batch_size} n_channels={self.n_channels} n_samples={self.n_samples}"
        return f"<RawAudio {size}>"


def _block(data: Numbers, shape: tuple[int, int, int], what: str) -> AnyArray:
    array = _flat_array(data, what).reshape(-1)
    if min(shape) < 1 or array.size != np.prod(shape, dtype=object):
        raise InputError(f"{what}: expected numbers for the shape {shape}, got {array.size}")
    return array.reshape(shape)


def _flat_array(data: Numbers, what: str) -> AnyArray:
    if not isinstance(data, (list, tuple)):
        array = to_numpy(data, what)
        if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
            raise InputError(f"{what}: expected uint8 or floats, got {array.dtype}")
        return array
    try:
        numbers = np.asarray(data)
    except ValueError as error:
        raise InputError(f"{what}: expected numbers in a row ({error})") from error
    if np.issubdtype(numbers.dtype, np.floating):
        return numbers.astype(np.float32)
    if not np.issubdtype(numbers.dtype, np.integer) or np.min(numbers) < 0 or np.max(numbers) > 255:
        raise InputError(f"{what}: expected ints in 0..255 or floats, got {numbers.dtype}")
    return numbers.astype(np.uint8)
