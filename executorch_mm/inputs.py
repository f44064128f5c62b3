"""What a prompt is made of: text, token ids, images, audio and embeddings, in any order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from executorch_mm.arrays import (
    AnyArray,
    PairedArrays,
    SupportsDLPack,
    image_array,
    is_pil_image,
    is_stream,
    tile_array,
    to_numpy,
)
from executorch_mm.arrays import (
    numpy as np,
)
from executorch_mm.errors import InputError, shown

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image as PILImage
    from typing_extensions import Self

    from executorch_mm.preprocess import Waveform
    from executorch_mm.preprocess.sources import Fetch, Source
    from executorch_mm.preprocess.tiling import CutImage, Tile

Kind: TypeAlias = Literal["text", "tokens", "image", "audio", "raw_audio", "waveform", "embeddings"]
ArrayLike: TypeAlias = "AnyArray | SupportsDLPack"
ImageLike: TypeAlias = "PILImage | Source | ArrayLike"
Layout: TypeAlias = Literal["HWC", "CHW"]
Value: TypeAlias = "str | AnyArray | PairedArrays | PILImage | Waveform | Tile"


class MultimodalInput:
    """One part of a prompt. Arrays are kept by reference: nothing is copied until a model needs it.

    Make one with the `make_*_input` functions; a plain `str` is accepted wherever a `MultimodalInput` is.

    Attributes:
        kind: "text", "tokens", "image", "audio" (features), "raw_audio" (samples for the encoder), "waveform"
            (samples that features are made of) or "embeddings".
        id: The name that caches know its content by, where the caller has given one.
    """

    __slots__ = ("_value", "id", "kind")

    kind: Kind
    id: str | None
    _value: Value

    def __init__(self, value: str | Sequence[int]) -> None:
        """A text or token ids.

        Args:
            value: A string or a sequence of token ids.

        Raises:
            InputError: `value` is neither.
        """
        self.id = None
        if isinstance(value, str):
            self.kind, self._value = "text", value
        else:
            self.kind, self._value = "tokens", _token_array(value)

    @classmethod
    def _of(cls, kind: Kind, value: Value, content_id: str | None = None) -> Self:
        part = cls.__new__(cls)
        part.kind, part._value, part.id = kind, value, _checked_id(content_id)
        return part

    @property
    def value(self) -> Value:
        """The text, the array, the image or the audio itself, not a copy."""
        return self._value

    @property
    def notes(self) -> tuple[str, ...]:
        """What may be wrong with audio, because of the file it came from; also in `Stats.input_notes`."""
        notes: tuple[str, ...] = getattr(self._value, "notes", ()) if self.kind == "waveform" else ()
        return notes

    def is_text(self) -> bool:
        """Whether it is a text."""
        return self.kind == "text"

    def is_tokens(self) -> bool:
        """Whether it is token ids."""
        return self.kind == "tokens"

    def is_image(self) -> bool:
        """Whether it is an image."""
        return self.kind == "image"

    def is_audio(self) -> bool:
        """Whether it is audio: features, samples for the encoder, or samples to make features of."""
        return self.kind in ("audio", "raw_audio", "waveform")

    def is_raw_audio(self) -> bool:
        """Whether it is audio that no features have been made of."""
        return self.kind in ("raw_audio", "waveform")

    def __repr__(self) -> str:
        if isinstance(self._value, str):
            text = self._value if len(self._value) <= 50 else self._value[:50] + "..."
            return f'MultimodalInput(type=text, content="{text}")'
        if isinstance(self._value, np.ndarray):
            return f"MultimodalInput(type={self.kind}, dtype={self._value.dtype}, shape={self._value.shape})"
        if is_pil_image(self._value):
            return f"MultimodalInput(type={self.kind}, mode={self._value.mode}, size={self._value.size})"
        return f"MultimodalInput(type={self.kind}, {self._value!r})"


PromptPart: TypeAlias = "str | MultimodalInput | PILImage"
Prompt: TypeAlias = "str | MultimodalInput | PILImage | Sequence[PromptPart]"


def make_text_input(text: str) -> MultimodalInput:
    """A text; the runner's tokenizer encodes it, special tokens written in it included.

    Args:
        text: Any string.

    Raises:
        InputError: `text` is not a string.
    """
    if not isinstance(text, str):
        raise InputError(f"text: expected a str, got {type(text).__name__}")
    return MultimodalInput(text)


def make_token_input(tokens: Iterable[int]) -> MultimodalInput:
    """Token ids, used as they are.

    Args:
        tokens: Ids, any iterable of ints or an integer array of shape (num_tokens,).

    Raises:
        InputError: Something else than non-negative ints, or more than one dimension.
    """
    return MultimodalInput._of("tokens", _token_array(tokens))


def make_image_input(
    image: ImageLike,
    *,
    layout: Layout | None = None,
    fetch: Fetch | None = None,
    id: str | None = None,  # noqa: A002
) -> MultimodalInput:
    """An image.

    Args:
        image: A PIL image; a path, the bytes of an image file, a file object that is opened for bytes, a
            "file:", "data:" or "http(s):" URI; or an
            array (numpy, or anything with `__dlpack__` or the buffer protocol, such as a torch tensor on the
            CPU) of shape (height, width, channels) or (channels, height, width), with or without a batch of
            one, or grey (height, width). 1, 3 or 4 channels; uint8 in 0..255, uint16 in 0..65535, which are
            scaled, or floats. Or an image that was cut and prepared for an encoder of tiles, floats (tiles,
            channels, height, width).
        layout: Where the channels are. None decides from the shape: the end of size 3 or 4 holds the
            channels, else the end of size 1, and channels first wins when both ends could.
        fetch: Called with an http(s) URL, returns the bytes behind it. Nothing is downloaded without it.
        id: A name for what it holds that caches go by instead of looking at it (`prefix_cache_bytes`,
            `encoder_cache_bytes`): whatever has the same one counts as the same. None: they look.

    A float array that already has the encoder's exact shape, channels first, counts as prepared: it goes
    to the encoder as it is, by pointer where dtype and memory layout fit. Everything else passes through
    the model's image processor, when its files have one.

    Raises:
        InputError: Wrong rank, channel number, dtype or device, or an empty image; a file that is missing,
            damaged, of a format that is not read or larger than `MediaLimits` allows; a URL without `fetch`.
            NaN and infinite values are found when a model reads the image.
        MissingDependencyError: It is HEIC, and pillow-heif is not installed; the extra is `heic`.
    """
    if isinstance(image, (str, os.PathLike, bytes, bytearray)) or is_stream(image):
        from executorch_mm.preprocess import load_image

        image = load_image(cast("Source", image), fetch=fetch)
    if is_pil_image(image):
        from executorch_mm.preprocess.image_files import read_completely

        if 0 in image.size:
            raise InputError(f"image: expected at least one pixel, got size {image.size}")
        read_completely(image, "image")
        return MultimodalInput._of("image", image, id)
    array = to_numpy(image, "image")
    if array.ndim == 4 and array.shape[0] > 1 and np.issubdtype(array.dtype, np.floating):
        return MultimodalInput._of("image", tile_array(array), id)
    return MultimodalInput._of("image", image_array(array, layout=layout, check_values=False), id)


def make_patch_input(
    patches: ArrayLike,
    positions: ArrayLike,
    *,
    id: str | None = None,  # noqa: A002
) -> MultimodalInput:
    """An image in patches, for an encoder that is told where each of them lies, such as Gemma 4's.

    Args:
        patches: Floats (num_patches, values), with or without a batch of one.
        positions: Ints (num_patches, 2), column and row of each patch, -1 for padding; likewise.
        id: See `make_image_input`.

    Raises:
        InputError: Another rank or dtype, other numbers of patches, or none.
    """
    values, places = to_numpy(patches, "patches"), to_numpy(positions, "positions")
    values = values[0] if values.ndim == 3 and len(values) == 1 else values
    places = places[0] if places.ndim == 3 and len(places) == 1 else places
    if values.ndim != 2 or values.size == 0 or not np.issubdtype(values.dtype, np.floating):
        raise InputError(f"patches: expected floats (num_patches, values), got {_described(values)}")
    if places.shape != (len(values), 2) or not np.issubdtype(places.dtype, np.integer):
        raise InputError(f"positions: expected ints ({len(values)}, 2), got {_described(places)}")
    pair = PairedArrays(values, np.ascontiguousarray(places, dtype=np.int64))
    return MultimodalInput._of("image", pair, id)


def make_image_inputs(
    images: Iterable[ImageLike] | ArrayLike, *, layout: Layout | None = None, fetch: Fetch | None = None
) -> list[MultimodalInput]:
    """Several images, or the frames of a video: one input each, in this order.

    Args:
        images: What `make_image_input` takes, several of them; or an array of rank 4 with one image after
            the other.
        layout: See `make_image_input`.
        fetch: See `make_image_input`.

    Raises:
        InputError: See `make_image_input`.
    """
    several = to_numpy(images, "images") if hasattr(images, "__dlpack__") else images
    if isinstance(several, np.ndarray) and several.ndim != 4:
        raise InputError(f"images: expected a sequence of images or rank 4, got shape {several.shape}")
    is_one = isinstance(several, (str, bytes, bytearray)) or hasattr(several, "read")
    if is_one or not isinstance(several, Iterable):
        raise InputError(f"images: expected a sequence of images, got {type(images).__name__}")
    return [make_image_input(image, layout=layout, fetch=fetch) for image in several]


def tile_inputs(image: CutImage) -> list[MultimodalInput]:
    """The tiles of an image, one input each.

    Args:
        image: From `PromptEncoder.cut`.
    """
    return [MultimodalInput._of("image", tile) for tile in image.tiles]


def make_audio_input(
    audio: ArrayLike | Source | Waveform | Iterator[ArrayLike],
    *,
    sampling_rate: int | None = None,
    fetch: Fetch | None = None,
    mask: ArrayLike | None = None,
    id: str | None = None,  # noqa: A002
) -> MultimodalInput:
    """Audio features, as the model's audio encoder takes them, or audio that the runner makes them of.

    Args:
        audio: Features: float or uint8 array of shape (num_clips, num_bins, num_frames), or as the model's
            encoder takes them: (1, num_frames, num_bins) for Gemma 4. Audio: a path, the bytes of audio
            file, a file object that is opened for bytes, a "file:", "data:" or "http(s):" URI; or an array
            with `sampling_rate`, of shape (num_samples,), (channels, num_samples) or (num_samples, channels),
            of floats in -1..1 or integers of 8, 16 or 32 bits, which are scaled by their type; or an iterator
            of such arrays, one after the other, or of a file's bytes.
        sampling_rate: Samples per second of arrays of samples.
        fetch: Called with an http(s) URL, returns the bytes behind it. Nothing is downloaded without it.
        mask: Of features (1, num_frames, num_bins) for an encoder that takes a mask: bools or ints
            (num_frames,), false for padding. Without it all frames count.
        id: See `make_image_input`.

    Raises:
        InputError: Another rank or dtype, an empty array, NaN and infinite values, samples far outside of
            -1..1; a mask of another length, or beside audio; a file that is missing or damaged; audio
            beyond the limits (`MediaLimits`); a URL without `fetch`.
        MissingDependencyError: The file is no WAV file of plain samples, and soundfile is not installed; the
            extra is `audio`.
    """
    is_source = isinstance(audio, (str, os.PathLike, bytes, bytearray)) or is_stream(audio)
    if sampling_rate is None and not is_source:
        from executorch_mm.preprocess import Waveform

        if not isinstance(audio, Waveform):
            array = _audio_array(cast(ArrayLike, audio), "audio", "(num_clips, num_bins, num_frames)")
            if mask is None:
                return MultimodalInput._of("audio", array, id)
            pair = PairedArrays(array, _mask_array(mask, array.shape[-2]))
            return MultimodalInput._of("audio", pair, id)
    if mask is not None:
        raise InputError("mask: expected none beside an audio clip, whose frames all count")
    from executorch_mm.preprocess.audio import to_waveform

    return MultimodalInput._of("waveform", to_waveform(audio, sampling_rate, fetch=fetch), id)


def make_raw_audio_input(
    samples: ArrayLike,
    *,
    id: str | None = None,  # noqa: A002
) -> MultimodalInput:
    """Audio samples for a model whose audio encoder computes the features itself.

    Args:
        samples: float or uint8 array of shape (batch, channels, num_samples).
        id: See `make_image_input`.

    Raises:
        InputError: Another rank, or an empty array.
    """
    array = _audio_array(samples, "raw audio", "(batch, channels, num_samples)")
    return MultimodalInput._of("raw_audio", array, id)


def make_embedding_input(
    embeddings: ArrayLike,
    *,
    id: str | None = None,  # noqa: A002
) -> MultimodalInput:
    """Rows that go to the decoder in place of embedded tokens.

    Args:
        embeddings: Array of floats, shape (num_tokens, hidden_size); converted to the decoder's dtype.
        id: See `make_image_input`.

    Raises:
        InputError: Another rank.
    """
    array = to_numpy(embeddings, "embeddings")
    if array.ndim != 2:
        raise InputError(f"embeddings: expected shape (num_tokens, hidden_size), got {array.shape}")
    return MultimodalInput._of("embeddings", array, id)


def as_parts(prompt: Prompt) -> list[MultimodalInput]:
    """A prompt as a list of inputs.

    Args:
        prompt: A string, one input, or a sequence of both.

    Raises:
        InputError: Something in it is neither.
    """
    if isinstance(prompt, (str, MultimodalInput)) or is_pil_image(prompt):
        return [_as_part(0, prompt)]
    if not isinstance(prompt, Sequence):
        raise InputError(
            f"inputs: expected a str, a MultimodalInput or a list of them, got {type(prompt).__name__}"
        )
    return [_as_part(index, part) for index, part in enumerate(prompt)]


def _as_part(index: int, part: object) -> MultimodalInput:
    if isinstance(part, MultimodalInput):
        return part
    if isinstance(part, str):
        return MultimodalInput(part)
    if is_pil_image(part):
        return make_image_input(part)
    raise InputError(
        f"input {index}: expected a str, a PIL image or what a make_*_input function returns, "
        f"got {type(part).__name__}"
    )


def _checked_id(given: object) -> str | None:
    if given is not None and (not isinstance(given, str) or not given):
        raise InputError(f"id: expected a str that is not empty, or None, got {shown(given)}")
    return given


def _token_array(tokens: object) -> npt.NDArray[np.int64]:
    try:
        if hasattr(tokens, "__dlpack__"):
            array = to_numpy(tokens, "tokens")
        else:
            array = np.asarray(tokens if hasattr(tokens, "__len__") else list(tokens))  # type: ignore[call-overload]
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise InputError(f"tokens: expected a sequence of ints, got {type(tokens).__name__}") from error
    if array.ndim != 1:
        raise InputError(f"tokens: expected shape (num_tokens,), got {array.shape}")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"tokens: expected ints, got {array.dtype}")
    ids = np.ascontiguousarray(array, dtype=np.int64)
    if ids.size and int(np.min(ids)) < 0:
        raise InputError(f"tokens: expected ids of 0 or more, got {int(np.min(ids))}")
    return ids


def _mask_array(mask: ArrayLike, num_frames: int) -> AnyArray:
    array = to_numpy(mask, "mask")
    if array.size != num_frames or array.dtype.kind not in "bui":
        raise InputError(f"mask: expected bools or ints ({num_frames},), got {_described(array)}")
    return np.ascontiguousarray(array.reshape(-1) != 0).view(np.uint8)


def _described(array: AnyArray) -> str:
    return f"{array.dtype} {array.shape}"


def _audio_array(data: ArrayLike, what: str, shape: str) -> AnyArray:
    array = to_numpy(data, what)
    if array.ndim != 3 or array.size == 0:
        raise InputError(f"{what}: expected shape {shape} with at least one element, got {array.shape}")
    return array
