"""All that a model's folder says about preprocessing, in one object."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from executorch_mm._files.paths import checked_path
from executorch_mm._files.processor_configs import CONFIG_NAMES
from executorch_mm.errors import InputError, shown
from executorch_mm.preprocess.audio import AudioProcessor
from executorch_mm.preprocess.find import FoundProcessors
from executorch_mm.preprocess.image import ImageProcessor
from executorch_mm.preprocess.mel_program import MelProgram
from executorch_mm.preprocess.rgb_images import Layout
from executorch_mm.preprocess.sources import Fetch
from executorch_mm.preprocess.steps import FloatArray, PreparedImage


class Processor:
    """Images, frames and audio, prepared as the model was trained on them.

    Args:
        image: Prepares images, or None for a model that takes none.
        audio: Prepares audio, or None for a model that takes none.
        folder: Where `frames` looks for a video processor of its own.

    Examples:
        >>> processor = Processor.from_pretrained("model/")  # doctest: +SKIP
        >>> [prepared] = processor.images(["photo.jpg"])  # doctest: +SKIP
    """

    def __init__(
        self,
        image: ImageProcessor | None = None,
        audio: AudioProcessor | MelProgram | None = None,
        *,
        folder: Path | None = None,
    ) -> None:
        self.image = image
        self.audio = audio
        self._folder = folder

    def __repr__(self) -> str:
        return f"Processor(image={self.image!r}, audio={self.audio!r})"

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike[str], *, audio_preprocessor: str | os.PathLike[str] | None = None
    ) -> Processor:
        """Reads processor_config.json, preprocessor_config.json and what newer models have beside them.

        Args:
            path: The model's folder, or one of these files.
            audio_preprocessor: The .pte file that makes features of audio. None takes the one that has
                "preprocess" in its name in the folder; without one, features are made as the files say.

        Raises:
            ModelLoadError: There are several such .pte files, or it cannot be loaded.
            ContractError: It is no such program; see `MelProgram`.
            InputError: There is no such file, it is damaged, a class is not supported, or there are keys that
                are not understood; the message names them.
        """
        folder = checked_path(path, "path")
        found = FoundProcessors([folder], audio_preprocessor=audio_preprocessor)
        if found.image is None and found.audio is None:
            raise InputError(f"{folder}: expected {' or '.join(CONFIG_NAMES)} in this folder")
        return cls(found.image, found.audio, folder=folder)

    def images(self, images: Sequence[object], *, layout: Layout | None = None) -> list[PreparedImage]:
        """Prepares images, each by itself; see `ImageProcessor.prepare`.

        Raises:
            InputError: The model has no image processor, or see there.
        """
        processor = self._image_processor()
        given: object = images
        if not isinstance(given, (Sequence, np.ndarray)) or getattr(given, "ndim", 1) == 0:
            raise InputError(f"images: expected a list of images, got {shown(images)}")
        return [processor.prepare(image, layout=layout) for image in images]

    def frames(self, frames: Sequence[object], *, layout: Layout | None = None) -> list[PreparedImage]:
        """Prepares the frames of a video; see `ImageProcessor.prepare_frames`.

        The model's video processor is used where it has one, else its image processor.

        Raises:
            InputError: The model has neither, its video processor is not supported, or see there.
        """
        return (self._video_processor or self._image_processor()).prepare_frames(frames, layout=layout)

    def audio_features(
        self, audio: object, sampling_rate: int | None = None, *, fetch: Fetch | None = None
    ) -> FloatArray:
        """Makes features of an audio clip; see `AudioProcessor.__call__`.

        Raises:
            InputError: The model has no feature extractor, or see there.
        """
        if self.audio is None:
            raise InputError("audio: the model's files describe no feature extractor")
        return self.audio(audio, sampling_rate, fetch=fetch)

    def _image_processor(self) -> ImageProcessor:
        if self.image is None:
            raise InputError("image: the model's files describe no image processor")
        return self.image

    @functools.cached_property
    def _video_processor(self) -> ImageProcessor | None:
        return None if self._folder is None else FoundProcessors([self._folder]).video
