"""The runner of speech models: an audio clip in, what was said out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from executorch_mm._loading.options import SHOWN as SHOWN_LOADING
from executorch_mm._loading.options import PathLike, RunnerOptions
from executorch_mm._loading.shown_options import show_options
from executorch_mm.speech._loaded import LoadedSpeech
from executorch_mm.speech._methods import SpeechMethods
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class SpeechRunner(SpeechMethods):
    """Writes down what is said in an audio clip, with an ExecuTorch .pte file of an encoder and a decoder.

    A file with `encoder` and `text_decoder` is of Whisper's kind, one with `encoder`, `decoder_step` and
    `joint` is a transducer.

    Nothing is remembered from one clip to the next. One request runs at a time, as in `MultimodalRunner`:
    threads are refused a second one with `BusyError`, tasks that `await` wait their turn, and `stop()` may be
    called at any time. `SpeechModel` transcribes several clips at a time over one load.

    Examples:
        >>> runner = SpeechRunner("whisper/model.pte")  # doctest: +SKIP
        >>> runner.transcribe("speech.wav", language="en").text  # doctest: +SKIP
        ' And so, my fellow Americans, ask not what your country can do for you.'
    """

    def __init__(
        self,
        model_path: PathLike,
        tokenizer_path: PathLike | Tokenizer | None = None,
        *,
        data_path: PathLike | Sequence[PathLike] = (),
        processor_path: PathLike | None = None,
        **options: Unpack[RunnerOptions],
    ) -> None:
        """Loads a model. The GIL is released meanwhile.

        Args:
            model_path: The .pte file. generation_config.json is looked for beside it and the tokenizer.
            tokenizer_path: As in `MultimodalRunner`.
            data_path: As in `MultimodalRunner`.
            processor_path: preprocessor_config.json or its folder. None looks beside model and tokenizer;
                without one, Whisper's own features are made.
            **options: As in `MultimodalRunner`.

        Raises:
            ModelLoadError: The file cannot be read, verified or initialised, or needs a backend that is not
                here.
            ContractError: It is a program, but not a speech model that this runner can drive.
            TokenizerError: The tokenizer file is missing, malformed or of an unknown kind.
            InputError: An option is wrong, or a file beside the model is damaged.
        """
        loaded = LoadedSpeech(model_path, tokenizer_path, data_path, processor_path, **options)
        self._source, self._tokenizer = loaded.source, loaded.tokenizer
        self._requests = loaded.requests()

    @classmethod
    def from_pretrained(
        cls,
        name: PathLike,
        *,
        model_file: str | None = None,
        revision: str | None = None,
        cache_dir: PathLike | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        **options: Unpack[RunnerOptions],
    ) -> Self:
        """Loads a model with what was published with it; parameters are those of `MultimodalRunner`'s.

        Raises:
            ModelLoadError, MissingDependencyError: As there.
        """
        from executorch_mm._loading.pretrained import find_model

        files = find_model(name, model_file, revision, cache_dir, token, local_files_only=local_files_only)
        return cls(
            files.model,
            files.tokenizer,
            data_path=files.data,
            **options,
        )

    def close(self) -> None:
        """Frees the model and writes the profile, if there is one; as in `MultimodalRunner`."""
        self._requests.close()


show_options(SpeechRunner, SHOWN_LOADING)
