"""The parts of preprocessing that the files of a model describe: each looked for when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from executorch_mm._files.config_reader import Json, read_family
from executorch_mm._files.paths import checked_path
from executorch_mm._files.processor_configs import CONFIG_NAMES, Part, find_config
from executorch_mm._loading.lazy import BuiltOnce
from executorch_mm._loading.pretrained import find_audio_preprocessor
from executorch_mm.errors import InputError
from executorch_mm.preprocess.audio import AudioProcessor, parse_audio_config
from executorch_mm.preprocess.image import ImageProcessor, is_image_config, parse_image_config
from executorch_mm.preprocess.mel_program import CHUNK_FRAMES, MelProgram
from executorch_mm.preprocess.qwen2_vl import VIDEO_FAMILIES

_PARTS: tuple[Part, ...] = ("image_processor", "feature_extractor")


class FoundProcessors:
    """Each part from the first folder that has it, so that two parts may come from two folders.

    A damaged file, or one of an unknown class, is an `InputError` of the part that it describes alone.

    Args:
        folders: Of the model, in the order to look in.
        processor_path: A file, or another folder, that is looked in instead.
        audio_preprocessor: The .pte file that makes features of audio; None looks for it in the folders.
        chunk_frames: See `MelProgram`.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        processor_path: str | os.PathLike[str] | None = None,
        audio_preprocessor: str | os.PathLike[str] | None = None,
        *,
        chunk_frames: int = CHUNK_FRAMES,
    ) -> None:
        self._folders = folders
        self._places = folders if processor_path is None else [checked_path(processor_path, "processor_path")]
        self._is_given = processor_path is not None
        self._audio_preprocessor = audio_preprocessor
        self._chunk_frames = chunk_frames

    @BuiltOnce
    def image(self) -> ImageProcessor | None:
        """Prepares images; None for a model whose files describe no image processor."""
        found = self._find("image_processor")
        return None if found is None else ImageProcessor(parse_image_config(*found))

    @property
    def has_other_than_image(self) -> bool:
        """Whether preprocessor_config.json is there, but none that describes an image processor."""
        return self.image is None and any(find_config(place, "image_processor") for place in self._places)

    @BuiltOnce
    def video(self) -> ImageProcessor | None:
        """Prepares frames; None for a model whose files describe no video processor."""
        for place in self._places:
            found = find_config(place, "video_processor")
            name = found[0].get("video_processor_type") if found is not None else None
            if found is not None and name is not None:
                steps = read_family(found[0], name, VIDEO_FAMILIES, "video_processor_type", found[1])
                return ImageProcessor(steps)
        return None

    @BuiltOnce
    def feature_extractor(self) -> AudioProcessor | None:
        """Makes features of audio; None for a model whose files describe no feature extractor."""
        found = self._find("feature_extractor")
        return None if found is None else AudioProcessor(parse_audio_config(*found))

    @BuiltOnce
    def mel_program(self) -> MelProgram | None:
        """The program that makes features of audio; None for a model without one.

        Raises:
            ModelLoadError: There are several, or it cannot be loaded.
            ContractError: It is no such program.
        """
        path = self._audio_preprocessor
        if path is None:
            path = find_audio_preprocessor(self._folders)
        return None if path is None else MelProgram(path, chunk_frames=self._chunk_frames)

    @property
    def audio(self) -> AudioProcessor | MelProgram | None:
        """Makes features of audio: the program, else what the files describe."""
        return self.mel_program or self.feature_extractor

    def missing(self, what: str) -> InputError:
        """An error to be raised where a part is needed and not found.

        Args:
            what: The part.
        """
        places = " or ".join(str(place) for place in self._places) or "a folder (the model is in memory)"
        return InputError(f"{what}: expected {' or '.join(CONFIG_NAMES)} that describes it, in {places}")

    def _find(self, part: Part) -> tuple[Json, str] | None:
        # preprocessor_config.json may be either part's.
        wants_image = part == "image_processor"
        for place in self._places:
            found = find_config(place, part)
            if found is not None and is_image_config(found[0]) == wants_image:
                return found
        if self._is_given and not any(find_config(place, part) for place in self._places for part in _PARTS):
            raise self.missing(part.replace("_", " "))
        return None
