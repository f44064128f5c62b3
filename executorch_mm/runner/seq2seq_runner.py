"""The runner of models that read one text and write another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm._engine.answer_methods import AnswerMethods
from executorch_mm._engine.loaded import Loaded
from executorch_mm._engine.seq2seq import Seq2SeqRequests
from executorch_mm._loading.loaded_model import LoadedModel
from executorch_mm._loading.options import SHOWN, PathLike, RunnerOptions
from executorch_mm._loading.shown_options import show_options
from executorch_mm.errors import UnknownOptionError
from executorch_mm.stats import Stats, counted
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self, Unpack


class Seq2SeqRunner(LoadedModel, AnswerMethods):
    """Runs an encoder-decoder (T5 and its kind) from an ExecuTorch .pte file: a text in, a text out.

    Each request gets one text, or one input of token ids, and begins anew: nothing is remembered. A text gets
    the special tokens that its tokenizer.json puts around it, ids are taken as they are. Otherwise
    `generate`, `stream`, `generate_result` and the rest are those of `MultimodalRunner`; one request runs at
    a time.

    Examples:
        >>> runner = Seq2SeqRunner("flan-t5-small")  # doctest: +SKIP
        >>> runner.generate_text("translate English to German: How old are you?")  # doctest: +SKIP
        'Wie alt sind Sie?'
    """

    def __init__(
        self,
        model_path: PathLike | Buffer,
        tokenizer_path: PathLike | Tokenizer | None = None,
        *,
        data_path: PathLike | Sequence[PathLike] = (),
        **options: Unpack[RunnerOptions],
    ) -> None:
        """Loads a model. The GIL is released meanwhile.

        Args:
            model_path: The .pte file or its bytes: `encoder`, which takes token ids (1, length), and
                `text_decoder`, which takes token ids, all that `encoder` gives, and a position.
                generation_config.json and config.json, looked for beside it and the tokenizer, name the token
                that the decoder begins with and those that end an answer.
            tokenizer_path: As in `MultimodalRunner`.
            data_path: As in `MultimodalRunner`.
            **options: As in `MultimodalRunner`.

        Raises:
            ModelLoadError: The file cannot be read, verified or initialised, or needs a backend that is not
                here.
            ContractError: It is no such program, or nothing names the token that the decoder begins with.
            TokenizerError: The tokenizer file is missing, malformed or of an unknown kind, or a file beside
                it is damaged.
            InputError: An option is wrong.
        """
        UnknownOptionError._check(options, RunnerOptions.__annotations__, {})
        loaded = Loaded(model_path, tokenizer_path, data_path, None, None, is_seq2seq=True, **options)
        session = loaded.take_first()
        self._source = loaded.source
        self._requests: Seq2SeqRequests = Seq2SeqRequests(session, loaded)
        self._tokenizer = loaded.tokenizer

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
        return cls(files.model, files.tokenizer, data_path=files.data, **options)

    def _facts(self) -> list[str]:
        return ["text to text", counted(self._requests.session.num_threads, "thread")]

    def stop(self) -> None:
        """Ends the running request before the model's next call; from any thread."""
        self._requests.stop()

    def close(self) -> None:
        """Frees the model and writes the profile, if there is one; as in `MultimodalRunner`."""
        self._requests.close()

    @property
    def contract(self) -> _core.Contract:
        """What the model file promises: methods, shapes, limits, metadata."""
        return self._requests.session.contract

    @property
    def max_source_length(self) -> int:
        """Tokens of a text, special tokens included, that the encoder takes at most."""
        return int(self.contract.methods["encoder"].inputs[0].shape[1])

    @property
    def stats(self) -> Stats:
        """What the last finished request cost; prompt tokens are the text's and the decoder's first."""
        return self._requests.stats

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer in use."""
        return self._tokenizer


show_options(Seq2SeqRunner, SHOWN)
