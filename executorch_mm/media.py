"""`Image`, `Audio` and `RawAudio`: arrays under the names that ExecuTorch's runner gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from executorch_mm.arrays import AnyArray, SupportsDLPack, to_numpy
from executorch_mm.errors import InputError

Numbers: TypeAlias = "Sequence[int] | Sequence[float] | AnyArray | SupportsDLPack"
BlockT = TypeVar("BlockT", bound="_Block")


class _Block:
    """Three axes of bytes or floats."""

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
    def uint8_data(self) -> npt.NDArray[np.uint8]:
        """The bytes in a row, a view where they lie in this order.

        Raises:
            InputError: It holds floats.
        """
        if not self.is_uint8():
            raise InputError(f"uint8_data: expected uint8, got {self.array.dtype}")
        return self.array.reshape(-1).view(np.uint8)

    @property
    def float_data(self) -> AnyArray:
        """The floats in a row, a view where they lie in this order.

        Raises:
            InputError: It holds bytes.
        """
        if not self.is_float():
            raise InputError(f"float_data: expected floats, got {self.array.dtype}")
        return self.array.reshape(-1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dtype={self.array.dtype}, shape={self.array.shape})"


class Image(_Block):
    """A picture, channels first.

    Args:
        data: Bytes in 0..255 or floats, (channels, height, width) in a row.
        width: In pixels.
        height: In pixels.
        channels: 3 (RGB) or 4 (RGBA), or 1 (grey).

    Attributes:
        array: (channels, height, width).

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


class Audio(_Block):
    """Features of sounds.

    Args:
        data: Bytes or floats, (batch_size, n_bins, n_frames) in a row.
        batch_size: Number of clips.
        n_bins: Features in a frame.
        n_frames: Frames in a clip.

    Attributes:
        array: (batch_size, n_bins, n_frames).

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


class RawAudio(_Block):
    """Samples for a model that computes the features itself.

    Args:
        data: Bytes or floats, (batch_size, n_channels, n_samples) in a row.
        batch_size: Number of clips.
        n_channels: Channels of a clip.
        n_samples: Samples in a channel.

    Attributes:
        array: (batch_size, n_channels, n_samples).

    Raises:
        InputError: The numbers are not as many as the sizes say, or of another kind.
    """

    __slots__ = ()

    def __init__(self, data: Numbers, batch_size: int, n_channels: int, n_samples: int) -> None:
        self.array: AnyArray = _block(data, (batch_size, n_channels, n_samples), "raw audio")

    @property
    def data(self) -> AnyArray:
        """All samples in a row, a view where they lie in this order."""
        return self.array.reshape(-1)

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
    if not np.issubdtype(numbers.dtype, np.integer) or numbers.min() < 0 or numbers.max() > 255:
        raise InputError(f"{what}: expected ints in 0..255 or floats, got {numbers.dtype}")
    return numbers.astype(np.uint8)
