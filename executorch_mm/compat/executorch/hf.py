"""What a transformers processor returns, as inputs in the order in which the model reads them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from executorch_mm import InputError
from executorch_mm.arrays import AnyArray, to_numpy
from executorch_mm.compat.executorch.inputs import MultimodalInput, make_image_input, make_token_input


def split_processor_output(inputs: Mapping[str, object], image_token_id: int | None) -> list[MultimodalInput]:
    """Token ids with an image in the place of each run of `image_token_id`.

    Args:
        inputs: "input_ids" of shape (length,) or (1, length); with images "pixel_values" of shape
            (channels, height, width) or (images, channels, height, width), prepared for the encoder. Other
            keys are not looked at.
        image_token_id: The token that stands for (a part of) an image.

    Raises:
        InputError: Something is missing, of another shape, or there are not as many runs as images.
    """
    if "input_ids" not in inputs:
        raise InputError(f"inputs: expected 'input_ids' among the keys, got {sorted(inputs)}")
    ids = _single_sequence(to_numpy(inputs["input_ids"], "input_ids"))
    images = _images(inputs)
    runs = [] if image_token_id is None else _runs(ids == image_token_id)
    if images and image_token_id is None:
        raise InputError("image_token_id: expected the id of the image token with 'pixel_values', got None")
    if len(images) != len(runs):
        raise InputError(
            f"inputs: expected a run of image tokens (id {image_token_id}) for each image, "
            f"got {len(runs)} runs in 'input_ids' and {len(images)} images in 'pixel_values'"
        )
    parts: list[MultimodalInput] = []
    position = 0
    for (start, end), image in zip(runs, images, strict=True):
        parts += [make_token_input(ids[position:start].tolist()), make_image_input(image)]
        position = end
    parts.append(make_token_input(ids[position:].tolist()))
    return [part for part in parts if part.get_tokens() != []]


def _single_sequence(ids: AnyArray) -> AnyArray:
    if ids.ndim == 2 and ids.shape[0] == 1:
        ids = ids[0]
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(
            f"input_ids: expected ints of shape (length,) or (1, length), got {ids.dtype} {ids.shape}"
        )
    return ids


def _images(inputs: Mapping[str, object]) -> list[AnyArray]:
    if "pixel_values" not in inputs:
        return []
    pixels = to_numpy(inputs["pixel_values"], "pixel_values")
    if pixels.ndim not in (3, 4):
        raise InputError(
            "pixel_values: expected shape (channels, height, width), or several such in a batch, "
            f"got {pixels.shape}"
        )
    return [pixels] if pixels.ndim == 3 else list(pixels)


def _runs(mask: AnyArray) -> list[tuple[int, int]]:
    """(start, end) of each run of True."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))
