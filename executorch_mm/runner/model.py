"""A model that is loaded once, for many sessions."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm._engine.access import checked_priority
from executorch_mm._engine.adapters import AdapterLoading, checked_adapter
from executorch_mm._engine.cache_methods import CacheMethods
from executorch_mm._engine.conversation_methods import checked_method
from executorch_mm._engine.loaded import Loaded
from executorch_mm._loading.handle import Handle
from executorch_mm._loading.loaded_model import LoadedModel
from executorch_mm._loading.option_checks import optional_count
from executorch_mm._loading.options import MODEL_CACHES, SHOWN, ModelOptions, PathLike, PretrainedOptions
from executorch_mm._loading.shown_options import show_options
from executorch_mm.runner.model_map import ModelMap
from executorch_mm.runner.session import Session
from executorch_mm.stats import counted
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self, Unpack

_CHUNK = 128


class MultimodalModel(LoadedModel, AdapterLoading, CacheMethods, ModelMap):
    """A multimodal or text-only language model, loaded once, and as many conversations as are wanted.

    Weights, program and encoders are there once. Each session has a position, a history and a cache of its
    own, which takes memory as it is filled. Requests of several sessions that run at the same time, in
    threads or tasks, take turns: one call of the model each, prompts in chunks, so that nobody waits for the
    end of another's answer. What a session is answered does not depend on the others. A model cannot be used
    in a forked child (`ForkError`), pickled or copied.

    Examples:
        >>> from executorch_mm import MultimodalModel
        >>> model = MultimodalModel.demo()
        >>> with model.session() as one, model.session() as other:
        ...     texts = [each.generate_text("how many", max_new_tokens=3) for each in (one, other)]
        >>> texts[0] == texts[1]
        True
        >>> model.close()
    """

    def __init__(
        self,
        model_path: PathLike | Buffer,
        tokenizer_path: PathLike | Tokenizer | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        """Loads a model. The GIL is released meanwhile.

        Args:
            model_path: As in `MultimodalRunner`.
            tokenizer_path: As in `MultimodalRunner`. A `Tokenizer` of your own is used from several threads.
            **options: Fields of `ModelOptions`: those of `MultimodalRunner`, where caches are on unless they
                are given 0 bytes; `prefill_chunk` and `max_requests`.

        Raises:
            ModelLoadError, ContractError, TokenizerError, InputError: As in `MultimodalRunner`.
        """
        chunk = optional_count(options.pop("prefill_chunk", _CHUNK), "prefill_chunk")
        most = optional_count(options.pop("max_requests", None), "max_requests")
        data_path = options.pop("data_path", ())
        processor_path = options.pop("processor_path", None)
        audio_preprocessor = options.pop("audio_preprocessor", None)
        self._loaded = Loaded(
            model_path,
            tokenizer_path,
            data_path,
            processor_path,
            audio_preprocessor,
            MODEL_CACHES,
            **options,  # type: ignore[misc]
        )
        self._loaded.admission.most = most
        self._source = self._loaded.source
        self._adapters = self._loaded.adapters
        first = self._loaded.take_first(chunk)
        self._handle = Handle(first, "model")
        self._loaded.enter()
        self._change = threading.Lock()

    @classmethod
    def load(
        cls,
        model_path: PathLike | Buffer,
        tokenizer_path: PathLike | Tokenizer | None = None,
        **options: Unpack[ModelOptions],
    ) -> Self:
        """The same as the constructor."""
        return cls(model_path, tokenizer_path, **options)

    @classmethod
    def demo(cls, **options: Unpack[ModelOptions]) -> Self:
        """The small model in the wheel; see `MultimodalRunner.demo`.

        Args:
            **options: As in the constructor.
        """
        folder = Path(__file__).parents[1] / "models" / "tiny_vlm"
        return cls(folder / "model.pte", folder, **options)

    @classmethod
    def from_pretrained(cls, name: PathLike, **options: Unpack[PretrainedOptions]) -> Self:
        """Loads a model with what was published with it; see `MultimodalRunner.from_pretrained`.

        Args:
            name: A folder, a .pte file, or a repository of the Hugging Face Hub as "owner/name".
            **options: Those of `MultimodalRunner.from_pretrained` and of the constructor.

        Raises:
            ModelLoadError, MissingDependencyError: As in `MultimodalRunner.from_pretrained`.
        """
        from executorch_mm._loading.pretrained import find_model

        files = find_model(
            name,
            options.pop("model_file", None),
            options.pop("revision", None),
            options.pop("cache_dir", None),
            options.pop("token", None),
            options.pop("audio_preprocessor", None),  # type: ignore[arg-type]
            local_files_only=options.pop("local_files_only", False),
        )
        options["data_path"] = files.data
        options["audio_preprocessor"] = files.audio_preprocessor
        return cls(files.model, files.tokenizer, **options)  # type: ignore[misc]

    def session(self, *, priority: int = 0, method: str | None = None, adapter: str | None = None) -> Session:
        """A new conversation, at its beginning.

        Args:
            priority: Of the sessions that wait for the model the one with the lowest goes first.
            method: Which of `methods` answers in it, as with `Session.use_method`; None for the model's.
            adapter: Which of `adapters` answers in it, as with `Session.set_adapter`; None for the weights
                that the model was loaded with.

        Returns:
            To be closed, by `close()` or at the end of a `with` block.

        Raises:
            InputError: The model holds one conversation only: its state lies in a delegate; or
                there is no such method or adapter.
            ModelLoadError: The method cannot be loaded.
        """
        priority = checked_priority(priority)
        first = self._handle.get()
        if method is not None:
            method = checked_method(method, first.contract)
        if adapter is not None:
            adapter = checked_adapter(adapter, self._adapters)
        with self._change:
            core = first.another()
        core.priority = priority
        if method is not None:
            core.use_method(method)
        if adapter is not None:
            core.use_adapter(adapter)
        return Session._of(self._loaded, core, adapter=adapter)

    def _load(self, name: str, program: str, files: list[str]) -> None:
        with self.session() as session:
            session._load(name, program, files)

    @property
    def methods(self) -> tuple[str, ...]:
        """The decoders of the program, from which `method=` chooses."""
        return tuple(self.contract.choices)

    def warmup(self) -> None:
        """Runs each method of the model once; see `MultimodalRunner.warmup`."""
        with self.session() as session:
            session.warmup()

    def close(self) -> None:
        """Closes the sessions, frees the model and writes the profile, if there is one.

        Raises:
            BusyError: A request is running; the model stays usable.
            InputError: The profile cannot be written. The model is freed all the same.
        """
        if self._handle.is_forked or self._handle.is_closed:
            self._handle.close()
            return
        for session in list(self._loaded.sessions):
            session.close()
        first = self._handle.get()
        self._handle.close()
        self._loaded.leave()
        first.write_profile()

    def _facts(self) -> list[str]:
        return [f"context {self.contract.capacity}", counted(len(self._loaded.sessions), "session")]

    @property
    def contract(self) -> _core.Contract:
        """What the model file promises: methods, shapes, limits, metadata."""
        return self._handle.get().contract

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer in use."""
        return self._loaded.tokenizer

    @property
    def num_requests(self) -> int:
        """Requests that are under way now, of all sessions."""
        return self._loaded.admission.count


show_options(MultimodalModel, SHOWN)
