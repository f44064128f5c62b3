"""Prepares a prompt for the core: text to ids, images to what the encoder was trained on."""

from __future__ import annotations

from array import array as packed_array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm._loading.lazy import BuiltOnce
from executorch_mm.arrays import AnyArray, PairedArrays
from executorch_mm.arrays import numpy as np
from executorch_mm.config import GenerationConfig
from executorch_mm.errors import ContractError, InputError
from executorch_mm.inputs import MultimodalInput
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:  # imported when the first image or audio clip comes
    from executorch_mm._files.media_tokens import MediaTokens
    from executorch_mm.preprocess import MelProgram
    from executorch_mm.preprocess.find import FoundProcessors
    from executorch_mm.preprocess.tiling import CutImage


# Of a clip that is only to be heard once, to prepare the encoder: a second of Gemma 4's.
_REHEARSED_SAMPLES, _REHEARSED_FRAMES = 16000, 99


class ReadyInput(MultimodalInput):
    """An image or audio that is there as the core takes it, beside what it was made of.

    Attributes:
        prepared: That.
    """

    __slots__ = ("prepared",)

    prepared: _core.PreparedInput


class PromptEncoder:
    """Turns inputs into what a model's session takes.

    Args:
        contract: The model's promises.
        tokenizer: Encodes texts.
        processor: preprocessor_config.json or the folder it is in, or None to look for it.
        search_folders: The folders to look in; each part is taken from the first that has it.
        audio_preprocessor: The .pte file that makes features of audio, loaded at once; or None to look for
            it.
        tells_content: Whether prompts say what images, audio and embeddings hold, for caches.

    Raises:
        ModelLoadError: `audio_preprocessor` cannot be loaded.
        ContractError: It is no such program, or makes other features than the audio encoder takes.
        InputError: It is given, but the model takes no audio.
    """

    def __init__(
        self,
        contract: _core.Contract,
        tokenizer: Tokenizer,
        processor: Path | None,
        search_folders: Sequence[Path],
        audio_preprocessor: Path | None = None,
        *,
        tells_content: bool = False,
    ) -> None:
        self._contract = contract
        self._tokenizer = tokenizer
        self._processor_path = processor
        self._search_folders = search_folders
        self._audio_preprocessor = audio_preprocessor
        self._tells_content = tells_content
        if audio_preprocessor is not None:
            _ = self._mel_program

    def encode(
        self, parts: Sequence[MultimodalInput], config: GenerationConfig, *, is_start: bool
    ) -> list[_core.PreparedInput]:
        """The prompt as the core takes it; texts that follow each other stay separate texts.

        Args:
            parts: The inputs in order.
            config: num_bos and num_eos.
            is_start: Whether the prompt starts a conversation: there num_bos applies, or else one BOS is put
                before a text, image or audio clip if the tokenizer's files ask for it and it is not there.

        Raises:
            InputError: The model does not take such an input, or a text has no tokens to add.
        """
        kept = [part for part in parts if not _is_empty(part)]
        prompt = [part.prepared if isinstance(part, ReadyInput) else self._encode_part(part) for part in kept]
        if is_start and kept and (num_bos := config.num_bos or self._num_usual_bos(kept[0])):
            prompt.insert(0, _tokens([self._bos_id()] * num_bos))
        if config.num_eos:
            prompt.append(_tokens([self._eos_id()] * config.num_eos))
        return prompt

    def ready(self, parts: Sequence[MultimodalInput]) -> list[MultimodalInput]:
        """The same prompt, with images and audio that `encode` finds prepared; from any thread.

        Raises:
            InputError: The model does not take such an input.
        """
        return [part if part.is_text() or part.is_tokens() else self._ready(part) for part in parts]

    def _ready(self, part: MultimodalInput) -> ReadyInput:
        ready = ReadyInput._of(part.kind, part.value)
        ready.prepared = self._encode_part(part)
        return ready

    def token_ids(self, parts: Sequence[MultimodalInput], *, is_start: bool) -> list[int]:
        """The tokens of texts and token ids.

        Args:
            parts: The inputs in order.
            is_start: As in `encode`.

        Raises:
            InputError: Something else is among them.
        """
        ids: list[int] = []
        for part in parts:
            if part.kind not in ("text", "tokens"):
                raise InputError(f"inputs: expected texts and token ids, got one of kind {part.kind!r}")
            value = part.value
            ids += self._tokenizer.encode(value) if isinstance(value, str) else np.asarray(value).tolist()
        first = next((part for part in parts if not _is_empty(part)), None)
        if is_start and first is not None and self._num_usual_bos(first):
            ids.insert(0, self._bos_id())
        return ids

    def cut(self, part: MultimodalInput) -> CutImage | None:
        """An image in tiles that the encoder looks at one by one; None for one that it gets in one piece.

        Args:
            part: An image.

        Raises:
            InputError: The model takes no images, or none whose tiles have tokens between them: its encoder
                looks at several at once. Or the processor's file is damaged or of an unknown class.
        """
        from executorch_mm._engine.image_encoding import cut_image  # here: the first image may never come

        return cut_image(self._contract, part.value, lambda: self._processors)

    def rehearsal(self) -> Iterator[_core.PreparedInput]:
        """Prompts that together run every method of the model: a token, an empty image, a silent clip."""
        yield _tokens([0])
        image, audio = self._contract.image_encoder, self._contract.audio_encoder
        if image is not None and image.takes_positions:
            patches, values = image.values.shape[-2:]
            yield _core.PreparedInput.image(
                np.zeros((patches, values), np.float32), np.zeros((patches, 2), np.int64)
            )
        elif image is not None:
            yield _core.PreparedInput.image(_zeros((1, *image.values.shape[1:]), image.values.dtype))
        transform = self._contract.audio_transform
        if audio is not None and transform is not None:
            samples = min(_REHEARSED_SAMPLES, transform.inputs[0].shape[-1])
            yield _core.PreparedInput.audio(np.zeros(samples, np.float32))
        elif audio is not None:
            shape = audio.values.shape[1:]
            if audio.takes_mask and audio.values.is_dynamic:
                shape = (min(_REHEARSED_FRAMES, shape[0]), *shape[1:])
            yield _core.PreparedInput.audio(_zeros((1, *shape), audio.values.dtype))

    def _encode_part(self, part: MultimodalInput) -> _core.PreparedInput:
        value = part.value
        if isinstance(value, str):
            return _tokens(self._tokenizer.encode(value))
        if part.kind == "image":
            return self._image(part)
        if isinstance(value, PairedArrays):
            return self._audio(part, np.ascontiguousarray(value.values), value.beside)
        if part.kind == "waveform":
            return self._audio(part, self._audio_features(part))
        if part.kind == "tokens":
            return _core.PreparedInput.tokens(np.asarray(value, dtype=np.int64))
        array = np.ascontiguousarray(value)
        if part.kind == "embeddings":
            return _core.PreparedInput.embeddings(array, self._content(part, array))
        if part.kind == "raw_audio":
            if self._contract.audio_transform is not None:
                return self._audio(part, _mono(array))
            if self._mel_program is not None:
                array = self._mel_program.raw_features(array)
        return self._audio(part, array)

    def _audio(
        self, part: MultimodalInput, features: AnyArray, mask: AnyArray | None = None
    ) -> _core.PreparedInput:
        content = self._content(part, features, mask)
        return _core.PreparedInput.audio(features, mask, self._media_tokens.audio, content)

    def _content(self, part: MultimodalInput, *arrays: AnyArray | None) -> bytes:
        if not self._tells_content:
            return b""
        from executorch_mm._engine.content import content_of  # here: imports are to be fast

        return content_of(part, arrays)

    def _image(self, part: MultimodalInput) -> _core.PreparedInput:
        from executorch_mm._engine.image_encoding import image_values

        values, positions = image_values(self._contract, part.value, lambda: self._processors)
        content = self._content(part, values, positions)
        return _core.PreparedInput.image(values, positions, self._media_tokens.image, content)

    def _audio_features(self, part: MultimodalInput) -> AnyArray:
        self._expect_audio_encoder()
        if self._contract.audio_transform is not None:
            return self._samples(part)
        make = self._mel_program or self._processors.feature_extractor
        if make is None:
            from executorch_mm._files.processor_configs import CONFIG_NAMES

            raise InputError(
                f"audio: no {' or '.join(CONFIG_NAMES)} was found to say how features are made of audio; "
                "name it with processor_path=, or the program that makes them with audio_preprocessor=, or "
                "give the features themselves"
            )
        return make(part.value)

    def _samples(self, part: MultimodalInput) -> AnyArray:
        """Samples (num_samples,) for a program that makes the features itself."""
        from executorch_mm.preprocess import FrameConfig
        from executorch_mm.preprocess.audio import to_waveform

        extractor = self._processors.feature_extractor
        config = FrameConfig() if extractor is None else extractor.config
        samples = to_waveform(part.value).resampled(config.sampling_rate).samples
        if isinstance(config, FrameConfig):
            config.check_length(len(samples))
        return np.ascontiguousarray(samples)

    @BuiltOnce
    def _media_tokens(self) -> MediaTokens:
        """What stands for images and audio among the tokens of a decoder that is given both."""
        from executorch_mm._files.media_tokens import (
            MediaTokens,  # here: the import of the package stays short
        )

        if not self._contract.is_joint:
            return MediaTokens()
        return MediaTokens.find(self._search_folders, self._tokenizer.token_to_id)

    def _expect_audio_encoder(self) -> _core.MethodSpec:
        encoder = self._contract.audio_encoder
        if encoder is None:
            raise InputError("audio: the model has no audio_encoder and takes no audio")
        return encoder

    @BuiltOnce
    def _mel_program(self) -> MelProgram | None:
        wanted = self._expect_audio_encoder().values.shape
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

        encoder = self._contract.audio_encoder
        return FoundProcessors(
            self._search_folders,
            self._processor_path,
            self._audio_preprocessor,
            chunk_frames=CHUNK_FRAMES if encoder is None else encoder.values.shape[-1],
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


def _zeros(shape: tuple[int, ...], dtype: str) -> AnyArray:
    return np.zeros(shape, np.uint8 if dtype == "uint8" else np.float32)


def _mono(clips: AnyArray) -> AnyArray:
    """(1, channels, num_samples) as (num_samples,)."""
    if len(clips) != 1:
        raise InputError(
            f"raw audio: expected one clip for a program that makes features of it, got {len(clips)}"
        )
    samples: AnyArray = np.ascontiguousarray(clips[0].astype(np.float32).mean(axis=0))
    return samples


def _tokens(ids: Sequence[int]) -> _core.PreparedInput:
    try:
        packed = packed_array("q", ids)  # a prompt of text needs no numpy
    except (TypeError, OverflowError):  # of a tokenizer of the caller's own
        return _core.PreparedInput.tokens(np.array(ids, dtype=np.int64))
    return _core.PreparedInput.tokens(packed)  # type: ignore[arg-type]  # whatever has a buffer


def _is_empty(part: MultimodalInput) -> bool:
    return isinstance(part.value, str) and not part.value
