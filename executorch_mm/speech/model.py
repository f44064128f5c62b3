"""A speech model that is loaded once, for many transcriptions at a time."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm._engine.access import checked_priority
from executorch_mm._loading.handle import Handle
from executorch_mm._loading.loaded_model import LoadedModel
from executorch_mm._loading.option_checks import optional_count
from executorch_mm._loading.options import SHOWN, PathLike, SpeechModelOptions
from executorch_mm._loading.shown_options import show_options
from executorch_mm.errors import InputError
from executorch_mm.speech._loaded import LoadedSpeech
from executorch_mm.speech._map import SpeechMap
from executorch_mm.speech._methods import SpeechMethods
from executorch_mm.stats import counted
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class SpeechSession(SpeechMethods):
    """One of several that transcribe over one load, from `SpeechModel.session()`.

    It can do all that a `SpeechRunner` can. Sessions may be used at the same time, from threads and tasks:
    the model then works for each in turn, one call at a time. A session serves one request at a time.
    """

    def __init__(self) -> None:
        """Sessions are made by a model.

        Raises:
            InputError: Always.
        """
        raise InputError("SpeechSession: expected model.session() to make one")

    @classmethod
    def _of(cls, loaded: LoadedSpeech, priority: int) -> Self:
        made = cls.__new__(cls)
        made._source, made._tokenizer = loaded.source, loaded.tokenizer
        made._requests = loaded.more_requests(priority)
        return made

    def close(self) -> None:
        """Frees the memory of the session. Later calls raise `ExecutorchMMError`.

        Raises:
            BusyError: A request is running.
        """
        self._requests.close()


class SpeechModel(LoadedModel, SpeechMap):
    """A speech model, loaded once, and as many transcriptions at a time as are wanted.

    Weights and program are there once. Each session has a cache of its own, or a transducer's state, and what
    the encoder made of its clip. Requests of several sessions that run at the same time, in threads or tasks,
    take turns: one call of encoder or decoder each. What a session hears does not depend on the others. A
    model cannot be used in a forked child (`ForkError`), pickled or copied.

    Examples:
        >>> from executorch_mm import SpeechModel
        >>> model = SpeechModel("whisper/model.pte")  # doctest: +SKIP
        >>> with model.session() as one, model.session() as other:  # doctest: +SKIP
        ...     one.transcribe("speech.wav").text
    """

    def __init__(
        self,
        model_path: PathLike,
        tokenizer_path: PathLike | Tokenizer | None = None,
        **options: Unpack[SpeechModelOptions],
    ) -> None:
        """Loads a model. The GIL is released meanwhile.

        Args:
            model_path: As in `SpeechRunner`.
            tokenizer_path: As in `SpeechRunner`. A `Tokenizer` of your own is used from several threads.
            **options: Fields of `SpeechModelOptions`: those of `SpeechRunner`, and `max_requests`.

        Raises:
            ModelLoadError, ContractError, TokenizerError, InputError: As in `SpeechRunner`.
        """
        most = optional_count(options.pop("max_requests", None), "max_requests")
        data_path = options.pop("data_path", ())
        processor_path = options.pop("processor_path", None)
        # What is left are fields of `RunnerOptions`, which mypy does not know of a TypedDict.
        self._loaded = LoadedSpeech(
            model_path,
            tokenizer_path,
            data_path,
            processor_path,
            **options,  # type: ignore[misc]
        )
        self._loaded.admission.most = most
        self._source = self._loaded.source
        self._handle = Handle(self._loaded, "model")
        self._sessions: weakref.WeakSet[SpeechSession] = weakref.WeakSet()

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
        **options: Unpack[SpeechModelOptions],
    ) -> Self:
        """Loads a model with what was published with it; parameters are those of `SpeechRunner`'s.

        Raises:
            ModelLoadError, MissingDependencyError: As there.
        """
        from executorch_mm._loading.pretrained import find_model

        files = find_model(name, model_file, revision, cache_dir, token, local_files_only=local_files_only)
        options["data_path"] = files.data
        return cls(files.model, files.tokenizer, **options)

    def session(self, *, priority: int = 0) -> SpeechSession:
        """Another one that transcribes.

        Args:
            priority: Of the sessions that wait for the model the one with the lowest goes first.

        Returns:
            To be closed, by `close()` or at the end of a `with` block.

        Raises:
            InputError: The model holds one conversation only: its state lies in a delegate.
        """
        session = SpeechSession._of(self._handle.get(), checked_priority(priority))
        self._sessions.add(session)
        return session

    def _reads_together(self) -> bool:
        first = self._handle.get().first
        return isinstance(first, _core.Session) and first.contract.max_batch_tokens > 1

    def close(self) -> None:
        """Closes the sessions, frees the model and writes the profile, if there is one.

        Raises:
            BusyError: A request is running; the model stays usable.
            InputError: The profile cannot be written. The model is freed all the same.
        """
        if self._handle.is_forked or self._handle.is_closed:
            self._handle.close()
            return
        for session in list(self._sessions):
            session.close()
        first = self._handle.get().first
        self._handle.close()
        del self._loaded
        first.write_profile()

    def _facts(self) -> list[str]:
        self._handle.get()
        return ["audio", counted(len(self._sessions), "session")]

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer in use."""
        return self._handle.get().tokenizer

    @property
    def num_requests(self) -> int:
        """Requests that are under way now, of all sessions."""
        return self._handle.get().admission.count


show_options(SpeechModel, SHOWN)
