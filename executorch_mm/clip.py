"""Embeddings of images and texts from a CLIP-like model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from executorch_mm import _core
from executorch_mm._loading.bundle import in_bundle
from executorch_mm._loading.handle import Handle
from executorch_mm._loading.lazy import BuiltOnce
from executorch_mm._loading.loaded_model import LoadedModel, name_source
from executorch_mm._loading.methods import find_method, load_methods
from executorch_mm._loading.option_checks import optional_path
from executorch_mm._loading.options import SHOWN, MethodOptions, PathLike
from executorch_mm._loading.shown_options import show_options
from executorch_mm._tokenizers.protocol import checked_tokenizer
from executorch_mm.arrays import AnyArray, to_numpy, unit_rows
from executorch_mm.errors import ContractError, InputError, shown
from executorch_mm.inputs import ImageLike, make_image_input
from executorch_mm.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from executorch_mm.preprocess import ImageProcessor

FloatArray: TypeAlias = npt.NDArray[np.float32]
TokenIds: TypeAlias = Sequence[int] | npt.NDArray[np.integer]

# ours and Hugging Face's name of each method
_IMAGE_METHODS = ("encode_image", "get_image_features")
_TEXT_METHODS = ("encode_text", "get_text_features")


class ClipModel(LoadedModel):
    """Embeds images and texts with a .pte file that has a method for each, or for one of them.

    The methods are `encode_image`, float (n, 3, height, width) to (n, size), and `encode_text`, token ids
    (n, length) to (n, size); Hugging Face's `get_image_features` and `get_text_features` are taken as well.
    Threads may call it at the same time, and tasks by `asyncio.to_thread`: calls of the program take turns,
    so that long lists wait for no other's end. A model cannot be used in a forked child (`ForkError`): load
    one in each process.

    Examples:
        >>> model = ClipModel("clip/model.pte")  # doctest: +SKIP
        >>> texts = model.encode_text(["a red circle", "a dog"])  # doctest: +SKIP
        >>> model.encode_image(image) @ texts.T  # doctest: +SKIP
        array([[0.31, 0.18]], dtype=float32)
    """

    def __init__(
        self,
        model_path: PathLike,
        tokenizer_path: PathLike | Tokenizer | None = None,
        *,
        processor_path: PathLike | None = None,
        **options: Unpack[MethodOptions],
    ) -> None:
        """Loads a model. The GIL is released meanwhile.

        Args:
            model_path: The .pte file.
            tokenizer_path: As in `MultimodalRunner`, but None looks beside the model only when the first text
                comes.
            processor_path: preprocessor_config.json or its folder. None looks beside the model when the first
                image comes that is not prepared.
            **options: Fields of `MethodOptions`: `load_mode`, `num_threads`, `xnnpack`, `max_requests`.

        Raises:
            ModelLoadError: The file cannot be read, verified or initialised.
            ContractError: It has neither of the two methods, or they take something else.
            TokenizerError: The tokenizer file is missing, malformed or of an unknown kind.
            InputError: An option is wrong.
        """
        if not isinstance(model_path, (str, os.PathLike)):
            raise InputError(f"model_path: expected a path, got {shown(model_path)}")
        model_path, _ = in_bundle(model_path, ())
        methods, self._admission = load_methods(model_path, **options)
        model = Path(os.fspath(model_path))
        self._image = find_method(methods, _IMAGE_METHODS, "float", (3, 4))
        self._text = find_method(methods, _TEXT_METHODS, "int", (2,))
        if self._image is None and self._text is None:
            wanted = " or ".join([*_IMAGE_METHODS, *_TEXT_METHODS])
            raise ContractError(f"{model}: expected a method {wanted}, got {sorted(methods.methods)}")
        self._handle = Handle(methods, "model")
        self._source = name_source(model)
        self._folder = model.parent
        self._processor_path = optional_path(processor_path, "processor_path")
        if isinstance(tokenizer_path, (str, os.PathLike)):
            tokenizer_path = load_tokenizer(tokenizer_path)
        elif tokenizer_path is not None:
            tokenizer_path = checked_tokenizer(tokenizer_path)
        self._given_tokenizer = tokenizer_path

    def _facts(self) -> list[str]:
        self._handle.get()
        found = [("images", self._image), ("text", self._text)]
        return ["+".join(name for name, method in found if method is not None)]

    def encode_image(self, images: ImageLike | Sequence[ImageLike], *, normalize: bool = True) -> FloatArray:
        """Embeds images.

        Args:
            images: One image or a list, each as in `make_image_input`. A float array of the method's exact
                shape (3, height, width) counts as prepared and goes to the model as it is; everything else
                passes through the model's image processor.
            normalize: Scale each embedding to length 1.

        Returns:
            float32 (number of images, size).

        Raises:
            InputError: Not an image, a model without this method, or no image processor beside it.
            ExecutionError: The model failed.
            QueueFullError: As many calls are under way as `max_requests` allows.
            ForkError: This is a forked child.
        """
        _check_flag(normalize)
        method = self._image
        if method is None:
            raise InputError(f"image: the model has no method {' or '.join(_IMAGE_METHODS)}")
        many = list(images) if isinstance(images, (list, tuple)) else [cast(ImageLike, images)]
        return self._admission.call(lambda: self._encode_images(method, many, normalize))

    def encode_text(
        self, texts: str | Sequence[str] | Sequence[TokenIds], *, normalize: bool = True
    ) -> FloatArray:
        """Embeds texts.

        Args:
            texts: One text, a list of texts, or a list of token ids with what the model wants at the
                beginning and the end of a text. Texts get the tokenizer's BOS and EOS. Rows shorter than the
                method's length are filled with their last id: CLIP reads no further than the first EOS.
            normalize: Scale each embedding to length 1.

        Returns:
            float32 (number of texts, size).

        Raises:
            InputError: Neither texts nor ids, one with no or too many tokens, or a model without this method.
            TokenizerError: No tokenizer beside the model.
            ExecutionError: The model failed.
            QueueFullError: As many calls are under way as `max_requests` allows.
            ForkError: This is a forked child.
        """
        _check_flag(normalize)
        method = self._text
        if method is None:
            raise InputError(f"text: the model has no method {' or '.join(_TEXT_METHODS)}")
        wanted = method.inputs[0]
        many = [texts] if isinstance(texts, str) else texts
        given: object = many
        if not isinstance(given, (Sequence, np.ndarray)) or getattr(given, "ndim", 2) != 2:
            raise InputError(f"text: expected a str, or a list of texts or token ids, got {shown(texts)}")
        rows = [_filled(self._ids(text), wanted.shape[1]).astype(wanted.dtype) for text in many]
        return self._admission.call(lambda: self._run(method, rows, normalize))

    def close(self) -> None:
        """Frees the model, unless this is a forked child. Later calls raise `ExecutorchMMError`."""
        self._handle.close()

    @property
    def methods(self) -> dict[str, _core.MethodSpec]:
        """Signatures of the model's methods by name."""
        return self._methods.methods

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer in use."""
        return self._tokenizer

    @property
    def copied_input_bytes(self) -> int:
        """Bytes copied so far on their way into a method: of another dtype, or planned by the program."""
        return self._methods.copied_input_bytes

    @property
    def _methods(self) -> _core.MethodRunner:
        return self._handle.get()

    @BuiltOnce
    def _tokenizer(self) -> Tokenizer:
        return self._given_tokenizer or load_tokenizer(self._folder)

    @BuiltOnce
    def _processor(self) -> ImageProcessor:
        from executorch_mm.preprocess.find import FoundProcessors

        processors = FoundProcessors([self._folder], self._processor_path)
        if processors.image is None:
            raise processors.missing("image processor")
        return processors.image

    def _encode_images(
        self, method: _core.MethodSpec, images: Sequence[ImageLike], normalize: bool
    ) -> FloatArray:
        pixels = [self._prepared(image, method.inputs[0].shape[-3:]) for image in images]
        return self._run(method, pixels, normalize)

    def _prepared(self, image: ImageLike, shape: tuple[int, ...]) -> AnyArray:
        value = make_image_input(image).value
        if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating) and value.shape == shape:
            return np.ascontiguousarray(value)
        return self._processor(value, layout="CHW")

    def _ids(self, text: str | TokenIds) -> AnyArray:
        if isinstance(text, str):
            has_bos = self._tokenizer.bos_id is not None
            return np.array(self._tokenizer.encode(text, add_bos=has_bos, add_eos=True), np.int64)
        try:
            ids = to_numpy(text, "text") if hasattr(text, "__dlpack__") else np.asarray(text)
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise InputError(f"text: expected a str or a row of token ids, got {shown(text)}") from error
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
            raise InputError(f"text: expected a str or a row of token ids, got {ids.dtype} {ids.shape}")
        return ids

    def _run(self, method: _core.MethodSpec, rows: Sequence[AnyArray], normalize: bool) -> FloatArray:
        """The embeddings of rows that each are one image or text as the method takes it."""
        made = [
            self._methods.run(method.name, [batch]).reshape(len(batch) if num_rows else 1, -1)[:num_rows]
            for batch, num_rows in _batches(rows, method.inputs[0])
        ]
        size = method.outputs[0].shape[-1]
        embeddings = made[0] if len(made) == 1 else np.concatenate(made or [np.empty((0, size), np.float32)])
        return unit_rows(embeddings) if normalize else embeddings


show_options(ClipModel, SHOWN)


def _batches(rows: Sequence[AnyArray], wanted: _core.TensorSpec) -> Iterator[tuple[AnyArray, int | None]]:
    """What each call gets, and how many rows of it count: None without a batch dimension.

    One row goes by pointer. A batch of fixed length is filled up with its last row.
    """
    if rows and rows[0].ndim == len(wanted.shape):
        for row in rows:
            yield row, None
        return
    length = wanted.shape[0]
    for first in range(0, len(rows), length):
        batch = list(rows[first : first + length])
        num_rows = len(batch)
        if not wanted.is_dynamic:
            batch += batch[-1:] * (length - num_rows)
        yield (batch[0][np.newaxis] if len(batch) == 1 else np.stack(batch)), num_rows


def _check_flag(normalize: object) -> None:
    if not isinstance(normalize, bool):
        raise InputError(f"normalize: expected True or False, got {shown(normalize)}")


def _filled(ids: AnyArray, length: int) -> AnyArray:
    if not 1 <= ids.size <= length:
        raise InputError(f"text: expected 1 to {length} tokens, got {ids.size}")
    return np.pad(ids, (0, length - ids.size), mode="edge")
