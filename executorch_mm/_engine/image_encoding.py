"""Prepares images for a model's encoder: whole, in tiles or in patches, as it was trained."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from executorch_mm import _core
from executorch_mm.arrays import AnyArray, PairedArrays
from executorch_mm.arrays import numpy as np
from executorch_mm.errors import InputError

if TYPE_CHECKING:  # imported when the first image comes
    from collections.abc import Callable

    from executorch_mm.preprocess.find import FoundProcessors
    from executorch_mm.preprocess.tiling import CutImage

    Processors = Callable[[], FoundProcessors]


def cut_image(contract: _core.Contract, value: Any, processors: Processors) -> CutImage | None:
    """An image in tiles, or None; see `PromptEncoder.cut`.

    Args:
        contract: The model's promises.
        value: The image.
        processors: Gives what the model's files say of its inputs.
    """
    from executorch_mm.preprocess import image_to_hwc_uint8
    from executorch_mm.preprocess.tiling import CutImage, SquareTiles, TileGrid

    wanted = _expect_encoder(contract).values
    if isinstance(value, PairedArrays):
        return None
    if _is_prepared(value, wanted):
        return None
    steps = _steps(processors)
    if wanted.dtype == "uint8" or not isinstance(steps, (SquareTiles, TileGrid)):
        return None
    takes_several = math.prod(wanted.shape[:-3]) > 1
    if takes_several and isinstance(steps, TileGrid):
        return None
    image = CutImage(image_to_hwc_uint8(value, layout="CHW"), steps)
    if math.prod(image.grid) < 2:
        return None
    if takes_several and not wanted.is_dynamic:
        raise InputError(
            f"image: expected a vision_encoder that looks at one tile at a time, since the model reads "
            f"tokens between the tiles, got one of shape {wanted.shape}"
        )
    return image


def image_values(
    contract: _core.Contract, value: Any, processors: Processors
) -> tuple[AnyArray, AnyArray | None]:
    """What the encoder takes of an image, and the positions of patches beside it.

    Args:
        contract: The model's promises.
        value: The image.
        processors: Gives what the model's files say of its inputs.

    Raises:
        InputError: The model takes no such image.
    """
    encoder = _expect_encoder(contract)
    if encoder.takes_positions:
        paired = _patches(encoder, value, processors)
        return np.ascontiguousarray(paired.values), paired.beside
    if isinstance(value, PairedArrays):
        raise InputError(f"image: {encoder.name} takes no patches, but images {encoder.values.shape}")
    return _pixels(encoder, value, processors), None


def _patches(encoder: _core.MethodSpec, value: Any, processors: Processors) -> PairedArrays:
    if isinstance(value, PairedArrays):
        return value
    from executorch_mm.preprocess import image_to_hwc_uint8
    from executorch_mm.preprocess.gemma4 import PlacedPatches

    steps = _steps(processors)
    if not isinstance(steps, PlacedPatches):
        raise InputError(
            "image: the model's files describe no image processor that cuts patches; name one with "
            "processor_path=, or give the patches with make_patch_input: floats "
            f"{encoder.values.shape[-2:]}"
        )
    steps = steps.within(encoder.values.shape[-2])
    return PairedArrays(*steps.cut(image_to_hwc_uint8(value, layout="CHW")))


def _pixels(encoder: _core.MethodSpec, value: Any, processors: Processors) -> AnyArray:
    wanted = encoder.values
    from executorch_mm.preprocess import image_to_hwc_uint8
    from executorch_mm.preprocess.tiling import Tile

    if isinstance(value, Tile):
        return value.pixel_values
    if _is_prepared(value, wanted):
        return np.ascontiguousarray(value)
    processor = processors().image
    if wanted.dtype != "uint8":
        if processor is not None:
            return processor(value, layout="CHW")
        if processors().has_other_than_image:
            raise InputError(
                "image: the model's files describe no image processor; name one with processor_path=, or "
                f"give the image as the encoder takes it: floats {wanted.shape[-3:]}"
            )
    return np.ascontiguousarray(image_to_hwc_uint8(value, layout="CHW").transpose(2, 0, 1))


def _steps(processors: Processors) -> object:
    processor = processors().image
    return None if processor is None else processor.config


def _expect_encoder(contract: _core.Contract) -> _core.MethodSpec:
    encoder = contract.image_encoder
    if encoder is None:
        raise InputError("image: the model has no vision_encoder and takes no images")
    return encoder


def _is_prepared(value: Any, wanted: _core.TensorSpec) -> bool:
    """Floats of exactly the encoder's shape, bytes for an encoder of bytes, and all with four dimensions."""
    if not isinstance(value, np.ndarray):
        return False
    is_of_kind = np.issubdtype(value.dtype, np.floating) or wanted.dtype == "uint8"
    return value.ndim == 4 or (is_of_kind and value.shape == wanted.shape[-3:])
