"""Images to the float array an image encoder was trained on, as the model's own files say."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from executorch_mm._files.config_reader import Family, Json, read_family
from executorch_mm._files.paths import checked_path
from executorch_mm._files.processor_configs import require_config
from executorch_mm.arrays import AnyArray, SupportsDLPack, to_numpy
from executorch_mm.errors import InputError
from executorch_mm.preprocess import fixed_size, gemma4, qwen2_vl, tiling
from executorch_mm.preprocess.fixed_size import ImageConfig
from executorch_mm.preprocess.rgb_images import Layout, image_to_hwc_uint8
from executorch_mm.preprocess.steps import FloatArray, ImageSteps, PreparedImage

_BY_PREFIX: dict[str, Family[ImageSteps]] = {
    "CLIP": Family(ImageConfig.read, fixed_size.CLIP, fixed_size.KEYS),
    "Llava": Family(ImageConfig.read, fixed_size.LLAVA, fixed_size.KEYS),
    "ViT": Family(ImageConfig.read, fixed_size.VIT, fixed_size.KEYS),
    "Siglip": Family(ImageConfig.read, fixed_size.SIGLIP, fixed_size.KEYS),
    "MobileViT": Family(ImageConfig.read, fixed_size.MOBILE_VIT, fixed_size.KEYS),
    "Gemma3": Family(fixed_size.read_gemma3, fixed_size.GEMMA3, fixed_size.GEMMA3_KEYS),
    "Gemma4": Family(gemma4.PlacedPatches.read, gemma4.IMAGE, gemma4.IMAGE_KEYS),
    "LlavaNext": Family(tiling.AnyResolution.read, tiling.LLAVA_NEXT, tiling.LLAVA_NEXT_KEYS),
    "GotOcr2": Family(tiling.read_got_ocr2, tiling.GOT_OCR2, tiling.GOT_OCR2_KEYS),
    "Idefics3": Family(tiling.SquareTiles.read, tiling.IDEFICS3, tiling.IDEFICS3_KEYS),
    "SmolVLM": Family(tiling.SquareTiles.read, tiling.IDEFICS3, tiling.IDEFICS3_KEYS),
    "Qwen2VL": Family(qwen2_vl.Patches.read, qwen2_vl.QWEN2_VL, qwen2_vl.KEYS),
}
_SUFFIXES = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
_ALIASES = {prefix + suffix: family for prefix, family in _BY_PREFIX.items() for suffix in _SUFFIXES[1:]}
FAMILIES = {f"{prefix}{_SUFFIXES[0]}": family for prefix, family in _BY_PREFIX.items()}


class ImageProcessor:
    """Prepares images; thread-safe, since it holds nothing but its configuration.

    Args:
        config: What to do, usually from `ImageProcessor.from_pretrained`.

    Examples:
        >>> processor = ImageProcessor.from_pretrained("model/")  # doctest: +SKIP
        >>> processor(np.zeros((480, 640, 3), np.uint8)).shape  # doctest: +SKIP
        (3, 336, 336)
    """

    def __init__(self, config: ImageSteps) -> None:
        self.config = config

    def __repr__(self) -> str:
        return f"ImageProcessor({self.config!r})"

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> ImageProcessor:
        """Reads what describes the image processor.

        Args:
            path: The file, or a folder with processor_config.json or preprocessor_config.json in it.

        Raises:
            InputError: The file is missing or damaged, its processor class is not supported, or it has keys
                that are not understood; the message names them.
        """
        return cls(parse_image_config(*require_config(checked_path(path, "path"), "image_processor")))

    def __call__(self, image: object, *, layout: Layout | None = None) -> FloatArray:
        """Prepares an image.

        Args:
            image: See `image_to_hwc_uint8`.
            layout: Where an array's channels are; None decides from its shape.

        Returns:
            float32, C-contiguous, the input of the image encoder: (3, height, width), or what
            `PreparedImage.pixel_values` says of processors that cut images.

        Raises:
            InputError: See `image_to_hwc_uint8`.
        """
        return self.prepare(image, layout=layout).pixel_values

    def prepare(self, image: object, *, layout: Layout | None = None) -> PreparedImage:
        """Prepares an image and tells how it was cut; see `__call__`."""
        return self.config.prepare(image_to_hwc_uint8(image, layout=layout))

    def prepare_frames(
        self, frames: Sequence[object] | AnyArray | SupportsDLPack, *, layout: Layout | None = None
    ) -> list[PreparedImage]:
        """Prepares images in a row, such as the frames of a video.

        Args:
            frames: Each as `__call__` takes it; or an array of them, (frames, height, width, channels) or
                (frames, channels, height, width).
            layout: Where an array's channels are; None decides from its shape.

        Returns:
            One result for each image; or one for all, from a processor whose patches span frames.

        Raises:
            InputError: See `__call__`; or there is no frame, or their sizes differ where patches span frames.
        """
        several = frames if isinstance(frames, Sequence) else to_numpy(frames, "frames")
        if isinstance(several, np.ndarray) and several.ndim == 0:
            raise InputError("frames: expected images in a row, got one number")
        images = [image_to_hwc_uint8(frame, layout=layout) for frame in several]
        if not images:
            raise InputError("frames: expected at least one")
        if not isinstance(self.config, qwen2_vl.Patches):
            return [self.config.prepare(image) for image in images]
        sizes = {image.shape[:2] for image in images}
        if len(sizes) > 1:
            raise InputError(f"frames: expected one size, got {sorted(sizes)}")
        return [self.config.prepare_frames(images)]


def parse_image_config(content: Json, where: str) -> ImageSteps:
    """Turns the keys of an image processor into steps.

    Args:
        content: The JSON object.
        where: Starts the error messages.

    Raises:
        InputError: See `ImageProcessor.from_pretrained`.
    """
    name = _class_name(content)
    families = _ALIASES if isinstance(name, str) and name in _ALIASES else FAMILIES
    return read_family(content, name, families, "image_processor_type", where)


def is_image_config(content: Json) -> bool:
    """Whether it describes an image processor rather than a feature extractor of audio."""
    name = _class_name(content)
    is_known = isinstance(name, str) and (name in FAMILIES or name in _ALIASES)
    return is_known or content.get("feature_extractor_type") is None


def _class_name(content: Json) -> object:
    return content.get("image_processor_type", content.get("feature_extractor_type"))
