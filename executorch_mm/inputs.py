"""What a prompt is made of: text, token ids, images, audio and embeddings, in any order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from executorch_mm.arrays import AnyArray, SupportsDLPack, image_array, is_pil_image, to_numpy
from executorch_mm.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Kind: TypeAlias = Literal["text", "tokens", "image", "audio", "raw_audio", "embeddings"]
ImageLike: TypeAlias = "PILImage | AnyArray | SupportsDLPack"
ArrayLike: TypeAlias = "AnyArray | SupportsDLPack"


class MultimodalInput:
    """One part of a prompt. Arrays are kept by reference: nothing is copied until a model needs it.

    Make one with the `make_*_input` functions; a plain `str` is accepted wherever a `MultimodalInput` is.

    Attributes:
        kind: "text", "tokens", "image", "audio", "raw_audio" or "embeddings".
    """

    __slots__ = ("_value", "kind")

    kind: Kind
    _value: str | AnyArray | PILImage

    def __init__(self, value: str | Sequence[int]) -> None:
        """A text or token ids. Images, audio and embeddings have `make_*_input` functions.

        Args:
            value: A string, or a sequence of token ids.

        Raises:
            InputError: `value` is neither.
        """
        if isinstance(value, str):
            self.kind, self._value = "text", value
        else:
            self.kind, self._value = "tokens", _token_array(value)

    @classmethod
    def _of(cls, kind: Kind, value: str | AnyArray | PILImage) -> MultimodalInput:
        part = cls.__new__(cls)
        part.kind, part._value = kind, value
        return part

    @property
    def value(self) -> str | AnyArray | PILImage:
        """The text, the array or the picture itself, not a copy."""
        return self._value

    def __repr__(self) -> str:
        if isinstance(self._value, str):
            text = self._value if len(self._value) <= 50 else self._value[:50] + "..."
            return f'MultimodalInput(type=text, content="{text}")'
        if isinstance(self._value, np.ndarray):
            return f"MultimodalInput(type={self.kind}, dtype={self._value.dtype}, shape={self._value.shape})"
        return f"MultimodalInput(type={self.kind}, mode={self._value.mode}, size={self._value.size})"


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


def make_image_input(image: ImageLike, *, layout: Literal["HWC", "CHW"] | None = None) -> MultimodalInput:
    """A picture.

    Args:
        image: A PIL image; or an array (numpy, or anything with `__dlpack__` such as a torch tensor on the
            CPU) of shape (height, width, channels) or (channels, height, width), with or without a batch
            of one, or grey (height, width). 1, 3 or 4 channels; uint8 in 0..255 or floats.
        layout: Where the channels are. None decides from the shape: the end of size 3 or 4 holds the
            channels, else the end of size 1, and channels first wins when both ends could.

    A float array that already has the encoder's exact shape, channels first, counts as prepared: it goes
    to the encoder as it is, by pointer where dtype and memory layout fit. Everything else passes through
    the model's image processor, when its files have one.

    Raises:
        InputError: Wrong rank, channel number, dtype, or an empty picture. NaN and infinite values are found
            when a model reads the picture.
    """
    if is_pil_image(image):
        if 0 in image.size:
            raise InputError(f"image: expected at least one pixel, got size {image.size}")
        return MultimodalInput._of("image", image)
    return MultimodalInput._of("image", image_array(image, layout=layout, check_values=False))


def make_audio_input(features: ArrayLike) -> MultimodalInput:
    """Audio features, as the model's audio encoder takes them.

    Args:
        features: float or uint8 array of shape (num_clips, num_bins, num_frames).

    Raises:
        InputError: Another rank, or an empty array.
    """
    return MultimodalInput._of("audio", _audio_array(features, "audio", "(num_clips, num_bins, num_frames)"))


def make_raw_audio_input(samples: ArrayLike) -> MultimodalInput:
    """Audio samples for a model whose audio encoder computes the features itself.

    Args:
        samples: float or uint8 array of shape (batch, channels, num_samples).

    Raises:
        InputError: Another rank, or an empty array.
    """
    return MultimodalInput._of(
        "raw_audio", _audio_array(samples, "raw audio", "(batch, channels, num_samples)")
    )


def make_embedding_input(embeddings: ArrayLike) -> MultimodalInput:
    """Rows that go to the decoder in place of embedded tokens.

    Args:
        embeddings: Array of floats, shape (num_tokens, hidden_size); converted to the decoder's dtype.

    Raises:
        InputError: Another rank.
    """
    array = to_numpy(embeddings, "embeddings")
    if array.ndim != 2:
        raise InputError(f"embeddings: expected shape (num_tokens, hidden_size), got {array.shape}")
    return MultimodalInput._of("embeddings", array)


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


def _token_array(tokens: object) -> npt.NDArray[np.int64]:
    try:
        array = np.asarray(tokens if hasattr(tokens, "__len__") else list(tokens))  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise InputError(f"tokens: expected a sequence of ints, got {type(tokens).__name__}") from error
    if array.ndim != 1:
        raise InputError(f"tokens: expected shape (num_tokens,), got {array.shape}")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"tokens: expected ints, got {array.dtype}")
    ids = np.ascontiguousarray(array, dtype=np.int64)
    if ids.size and int(ids.min()) < 0:
        raise InputError(f"tokens: expected ids of 0 or more, got {int(ids.min())}")
    return ids


def _audio_array(data: ArrayLike, what: str, shape: str) -> AnyArray:
    array = to_numpy(data, what)
    if array.ndim != 3 or array.size == 0:
        raise InputError(f"{what}: expected shape {shape} with at least one element, got {array.shape}")
    return array
