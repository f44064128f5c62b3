"""Prepares a prompt for the core: text to ids, pictures to what the encoder was trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from executorch_mm import _core
from executorch_mm._loading.lazy import BuiltOnce
from executorch_mm.arrays import AnyArray
from executorch_mm.config import GenerationConfig
from executorch_mm.errors import ContractError, InputError
from executorch_mm.inputs import MultimodalInput
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:  # imported when the first picture or sound comes
    from executorch_mm.preprocess import MelProgram
    from executorch_mm.preprocess.find import FoundProcessors
    from executorch_mm.preprocess.tiling import CutPicture


class PromptEncoder:
    """Turns inputs into what a model's session takes.

    Args:
        contract: The model's promises.
        tokenizer: Encodes texts.
        processor: preprocessor_config.json or the folder it is in, or None to look for it.
        beside: The folders to look in; each part is taken from the first that has it.
        audio_preprocessor: The .pte file that makes features of sounds, loaded at once; or None to look for
            it.

    Raises:
        ModelLoadError: `audio_preprocessor` cannot be loaded.
        ContractError: It is no such program, or makes other features than the audio encoder takes.
        InputError: It is given, but the model takes no sounds.
    """

    def __init__(
        self,
        contract: _core.Contract,
        tokenizer: Tokenizer,
        processor: Path | None,
        beside: Sequence[Path],
        audio_preprocessor: Path | None = None,
    ) -> None:
        self._contract = contract
        self._tokenizer = tokenizer
        self._processor_path = processor
        self._beside = beside
        self._audio_preprocessor = audio_preprocessor
        if audio_preprocessor is not None:
            _ = self._mel_program

    def encode(
        self, parts: Sequence[MultimodalInput], config: GenerationConfig, *, is_start: bool
    ) -> list[_core.PromptPart]:
        """The prompt as the core takes it; texts that follow each other stay separate texts.

        Args:
            parts: The inputs in order.
            config: num_bos and num_eos.
            is_start: Whether the prompt starts a conversation: there num_bos applies, or else one BOS is put
                before a text, picture or sound if the tokenizer's files ask for it and it is not there.

        Raises:
            InputError: The model does not take such an input, or a text has no tokens to add.
        """
        kept = [part for part in parts if not _is_empty(part)]
        prompt = [self._encode_part(part) for part in kept]
        if is_start and kept and (num_bos := config.num_bos or self._num_usual_bos(kept[0])):
            prompt.insert(0, _tokens([self._bos_id()] * num_bos))
        if config.num_eos:
            prompt.append(_tokens([self._eos_id()] * config.num_eos))
        return prompt

    def cut(self, part: MultimodalInput) -> CutPicture | None:
        """A picture in tiles that the encoder looks at one by one; None for one that it gets in one piece.

        Args:
            part: A picture.

        Raises:
            InputError: The model takes no pictures, or none whose tiles have tokens between them: its encoder
                looks at several at once. Or the processor's file is damaged or of an unknown class.
        """
        from executorch_mm.preprocess import image_to_hwc_uint8
        from executorch_mm.preprocess.tiling import CutPicture, SquareTiles, TileGrid

        wanted = self._expect_vision_encoder().inputs[0]
        value = part.value
        if isinstance(value, np.ndarray) and (value.ndim == 4 or _is_prepared(value, wanted)):
            return None
        steps = None if self._processors.image is None else self._processors.image.config
        if wanted.dtype == "uint8" or not isinstance(steps, (SquareTiles, TileGrid)):
            return None
        takes_several = math.prod(wanted.shape[:-3]) > 1
        if takes_several and isinstance(steps, TileGrid):
            return None
        picture = CutPicture(image_to_hwc_uint8(value, layout="CHW"), steps)
        if math.prod(picture.grid) < 2:
            return None
        if takes_several and not wanted.is_dynamic:
            raise InputError(
                f"image: expected a vision_encoder that looks at one tile at a time, since the model reads "
                f"tokens between the tiles, got one of shape {wanted.shape}"
            )
        return picture

    def rehearsal(self) -> Iterator[_core.PromptPart]:
        """Prompts that together run every method of the model: a token, an empty picture, a silent clip."""
        yield _tokens([0])
        for method, make in (
            ("vision_encoder", _core.PromptPart.image),
            ("audio_encoder", _core.PromptPart.audio),
        ):
            encoder = self._contract.methods.get(method)
            if encoder is not None:
                wanted = encoder.inputs[0]
                dtype = np.uint8 if wanted.dtype == "uint8" else np.float32
                yield make(np.zeros((1, *wanted.shape[1:]), dtype))

    def _encode_part(self, part: MultimodalInput) -> _core.PromptPart:
        value = part.value
        if isinstance(value, str):
            return _tokens(self._tokenizer.encode(value))
        if part.kind == "image":
            return _core.PromptPart.image(self._pixels(part))
        if part.kind == "sound":
            return _core.PromptPart.audio(self._audio_features(part))
        if part.kind == "tokens":
            return _core.PromptPart.tokens(np.asarray(value, dtype=np.int64))
        array = np.ascontiguousarray(value)
        if part.kind == "embeddings":
            return _core.PromptPart.embeddings(array)
        if part.kind == "raw_audio" and self._mel_program is not None:
            array = self._mel_program.raw_features(array)
        return _core.PromptPart.audio(array)

    def _pixels(self, part: MultimodalInput) -> AnyArray:
        wanted = self._expect_vision_encoder().inputs[0]
        from executorch_mm.preprocess import image_to_hwc_uint8
        from executorch_mm.preprocess.tiling import Tile

        value = part.value
        if isinstance(value, Tile):
            return value.pixel_values
        if isinstance(value, np.ndarray) and (value.ndim == 4 or _is_prepared(value, wanted)):
            return np.ascontiguousarray(value)
        processor = self._processors.image
        if wanted.dtype != "uint8":
            if processor is not None:
                return processor(value, layout="CHW")
            if self._processors.has_other_than_image:
                raise InputError(
                    "image: the model's files describe no image processor; name one with processor_path=, or "
                    f"give the picture as the encoder takes it: floats {wanted.shape[-3:]}"
                )
        return np.ascontiguousarray(image_to_hwc_uint8(value, layout="CHW").transpose(2, 0, 1))

    def _expect_vision_encoder(self) -> _core.MethodSpec:
        encoder = self._contract.methods.get("vision_encoder")
        if encoder is None:
            raise InputError("image: the model has no vision_encoder and takes no images")
        return encoder

    def _audio_features(self, part: MultimodalInput) -> AnyArray:
        self._expect_audio_encoder()
        make = self._mel_program or self._processors.feature_extractor
        if make is None:
            from executorch_mm._files.processor_configs import CONFIG_NAMES

            raise InputError(
                f"audio: no {' or '.join(CONFIG_NAMES)} was found to say how features are made of sounds; "
                "name it with processor_path=, or the program that makes them with audio_preprocessor=, or "
                "give the features themselves"
            )
        return make(part.value)

    def _expect_audio_encoder(self) -> _core.MethodSpec:
        encoder = self._contract.methods.get("audio_encoder")
        if encoder is None:
            raise InputError("audio: the model has no audio_encoder and takes no sounds")
        return encoder

    @BuiltOnce
    def _mel_program(self) -> MelProgram | None:
        wanted = self._expect_audio_encoder().inputs[0].shape
        program = self._processors.mel_program
        if program is not None and program.bins != wanted[-2]:
            raise ContractError(
                f"{program}: expected features of {wanted[-2]} bins for the audio_encoder, got {program.bins}"
            )
        return program

    @BuiltOnce
    def _processors(self) -> FoundProcessors:
        from executorch_mm.preprocess.find import FoundProcessors
        from executorch_mm.preprocess.mel_program import CHUNK_FRAMES

        encoder = self._contract.methods.get("audio_encoder")
        return FoundProcessors(
            self._beside,
            self._processor_path,
            self._audio_preprocessor,
            chunk_frames=CHUNK_FRAMES if encoder is None else encoder.inputs[0].shape[-1],
        )

    def _num_usual_bos(self, first: MultimodalInput) -> int:
        """1 where the tokenizer's files ask for a BOS that is not there yet; ids are taken as they are."""
        bos = self._tokenizer.bos_id
        if bos is None or not getattr(self._tokenizer, "adds_bos", False):
            return 0
        if first.kind in ("tokens", "embeddings"):
            return 0
        return int(not (isinstance(first.value, str) and self._tokenizer.encode(first.value)[:1] == [bos]))

    def _bos_id(self) -> int:
        bos = self._tokenizer.bos_id if self._tokenizer.bos_id is not None else self._contract.bos_id
        if bos is None:
            raise InputError("num_bos: neither the tokenizer nor the model names a beginning-of-text token")
        return bos

    def _eos_id(self) -> int:
        candidates = sorted(self._tokenizer.eos_ids) or self._contract.eos_ids
        if not candidates:
            raise InputError("num_eos: neither the tokenizer nor the model names an end-of-text token")
        return candidates[0]


def _tokens(ids: Sequence[int]) -> _core.PromptPart:
    return _core.PromptPart.tokens(np.array(ids, dtype=np.int64))


def _is_empty(part: MultimodalInput) -> bool:
    return isinstance(part.value, str) and not part.value


def _is_prepared(pixels: AnyArray, wanted: _core.TensorSpec) -> bool:
    """Floats of exactly the encoder's shape count as prepared; so do bytes for an encoder of bytes."""
    is_float = np.issubdtype(pixels.dtype, np.floating)
    return (is_float or wanted.dtype == "uint8") and pixels.shape == wanted.shape[-3:]
