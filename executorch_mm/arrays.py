"""Arrays of any library as numpy views, and the rule that tells channels from height and width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeGuard, cast

from executorch_mm.errors import InputError, shown

if TYPE_CHECKING:
    import numpy as np
    import numpy as numpy  # noqa: ICN001 (other modules have it from here)
    import numpy.typing as npt
    from PIL.Image import Image as PILImage

else:

    class _Numpy:
        """numpy, imported when something of it is asked for: half of the time that our import would take."""

        def __getattr__(self, name: str) -> object:
            from importlib import import_module

            self.__dict__[name] = found = getattr(import_module("numpy"), name)
            return found

    np = numpy = _Numpy()

AnyArray: TypeAlias = "npt.NDArray[np.generic]"
CHANNELS = (1, 3, 4)
_NO_NUMBERS = "OSUMm"  # numpy's letters for objects, texts, dates and spans of time

_CPU = 1
# The CPU, and memory of the host that CUDA or ROCm know of, by DLPack's numbers.
_HOST_DEVICES = (_CPU, 3, 11)
_DEVICE_NAMES = {2: "CUDA", 4: "OpenCL", 7: "Vulkan", 8: "Metal", 10: "ROCm", 13: "CUDA", 14: "oneAPI"}


@dataclass(frozen=True, eq=False, repr=False)
class PairedArrays:
    """What an encoder takes two arrays of.

    Attributes:
        values: Patches (num_patches, values) or features (..., num_frames, num_bins).
        beside: int64 positions of the patches (num_patches, 2), or uint8 mask of the frames (num_frames,).
    """

    values: AnyArray
    beside: AnyArray

    def __repr__(self) -> str:
        return f"dtype={self.values.dtype}, shape={self.values.shape}, beside={self.beside.shape}"


class SupportsDLPack(Protocol):
    """An array that other libraries can look into without a copy: torch, jax, cupy on the CPU, ..."""

    def __dlpack__(self) -> Any: ...


def is_pil_image(value: object) -> TypeGuard[PILImage]:
    """Whether it is a PIL image, told without importing PIL."""
    return hasattr(value, "getexif") and not isinstance(value, np.ndarray)


def is_stream(value: object) -> bool:
    """Whether it is a file object, or an iterator that gives the parts of a file or samples one by one."""
    return hasattr(value, "read") or hasattr(value, "__next__")


def to_numpy(array: object, what: str) -> AnyArray:
    """A numpy view of an array; the memory is shared wherever the other library allows it.

    Numbers in the other byte order are copied into the machine's own. So are torch tensors whose sign is only
    noted, not yet in memory.

    Args:
        array: A numpy array, or anything with `__dlpack__` or the buffer protocol.
        what: Starts the error message.

    Raises:
        InputError: It is none of these, lies on a device, or holds no numbers that numpy knows.
    """
    if isinstance(array, np.ndarray):
        return _native_numbers(array, what)
    try:
        device = int(cast(Any, array).__dlpack_device__()[0]) if hasattr(array, "__dlpack_device__") else _CPU
        if device in _HOST_DEVICES:
            return _native_numbers(_host_view(array), what)
    except InputError:
        raise
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        raise InputError(
            f"{what}: expected a numpy array or a CPU array with __dlpack__, "
            f"got {type(array).__name__} ({error})"
        ) from error
    raise InputError(
        f"{what}: expected an array in the memory of the CPU, got {type(array).__name__} on "
        f"{_DEVICE_NAMES.get(device, f'DLPack device {device}')}; copy it to the CPU first"
    )


def _host_view(array: object) -> AnyArray:
    if hasattr(array, "__dlpack__"):
        if bool(getattr(array, "requires_grad", False)):
            array = cast(Any, array).detach()
        return cast(AnyArray, np.from_dlpack(_resolved(cast(Any, array))))
    if hasattr(array, "__array_interface__"):
        return np.asarray(array)
    return np.asarray(memoryview(cast(Any, array)))


def _native_numbers(array: AnyArray, what: str) -> AnyArray:
    if array.dtype.kind in _NO_NUMBERS or array.dtype.names:
        raise InputError(f"{what}: expected an array of numbers, got {array.dtype}")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _resolved(array: Any) -> Any:
    """The array itself, or a copy with the signs that torch keeps as flags, which DLPack cannot say."""
    for flag, resolve in (("is_conj", "resolve_conj"), ("is_neg", "resolve_neg")):
        if hasattr(array, resolve) and getattr(array, flag)():
            array = getattr(array, resolve)()
    return array


def scale_16_bit(samples: AnyArray) -> npt.NDArray[np.uint8]:
    """16-bit samples as 8-bit ones, by the PNG specification's rule: floor(sample * 255 / 65535 + 0.5).

    Args:
        samples: uint16, or int32 of which those outside of 0..65535 are clipped.
    """
    if samples.dtype != np.uint16:
        samples = np.clip(samples, 0, 65535)
    scaled: npt.NDArray[np.uint8] = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return scaled


def image_array(
    image: object, *, layout: Literal["HWC", "CHW"] | None = None, check_values: bool = True
) -> AnyArray:
    """An image as a (channels, height, width) view; one of 16-bit samples as 8-bit ones.

    Args:
        image: (height, width, channels), (channels, height, width) or grey (height, width), with or
            without a batch of one.
        layout: "HWC" or "CHW"; None decides from the shape: the end of size 3 or 4 holds the channels, else
            the end of size 1; channels first where both ends could be.
        check_values: Look for NaN and infinity.

    Returns:
        A view of the same memory, channels first, 1, 3 or 4 of them. uint16 is scaled to uint8, which copies.

    Raises:
        InputError: Wrong rank, channel number or dtype; no pixels; NaN or infinite values.
    """
    array = to_numpy(image, "image")
    given: object = layout
    if given is not None and (not isinstance(given, str) or given not in ("HWC", "CHW")):
        raise InputError(f"layout: expected 'HWC', 'CHW' or None, got {shown(layout)}")
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[np.newaxis]
        layout = "CHW"
    if array.ndim != 3:
        raise InputError(
            f"image: must be 3-dimensional (HWC or CHW), or one such in a batch, got shape {array.shape}"
        )
    if array.size == 0:
        raise InputError(f"image: expected at least one pixel, got shape {array.shape}")
    if layout is None:
        layout = _guess_layout(array.shape[0], array.shape[2])
    chw = array if layout == "CHW" else array.transpose(2, 0, 1)
    if chw.shape[0] not in CHANNELS:
        raise InputError(
            f"image: must have 3 (RGB) or 4 (RGBA) channels, or 1 (grey), got shape {array.shape}"
        )
    return _bytes_or_floats(chw, check_values)


def _bytes_or_floats(samples: AnyArray, check_values: bool) -> AnyArray:
    if samples.dtype == np.uint8:
        return samples
    if samples.dtype == np.uint16:
        return scale_16_bit(samples)
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(f"image: expected uint8, uint16 or floats, got {samples.dtype}")
    if check_values and not np.isfinite(samples).all():
        raise InputError("image: expected finite values, got NaN or infinity")
    return samples


def tile_array(tiles: AnyArray) -> AnyArray:
    """An image that was cut before, checked.

    Args:
        tiles: Floats (tiles, channels, height, width).

    Raises:
        InputError: Other channels, or no pixels.
    """
    if tiles.size == 0 or tiles.shape[1] not in CHANNELS:
        raise InputError(
            "image: expected one image, or its tiles (tiles, channels, height, width), got shape "
            f"{tiles.shape}; make_image_inputs takes several images"
        )
    return tiles


def _guess_layout(first: int, last: int) -> Literal["HWC", "CHW"]:
    for channels in ((3, 4), (1,)):
        if first in channels:
            return "CHW"
        if last in channels:
            return "HWC"
    return "CHW"


def unit_rows(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows scaled to length 1; those of length 0 stay.

    Args:
        vectors: (n, size).
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, lengths.dtype.type(1)), vectors.dtype)
