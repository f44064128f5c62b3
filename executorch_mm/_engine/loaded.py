"""A language model and what belongs to it: loaded once, for all its sessions."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm._engine.prefix_store import PrefixStore
from executorch_mm._engine.prompt_encoding import PromptEncoder
from executorch_mm._loading.admission import Admission
from executorch_mm._loading.bundle import in_bundle
from executorch_mm._loading.identity import ModelIdentity
from executorch_mm._loading.lazy import BuiltOnce
from executorch_mm._loading.loaded_model import LoadedModel, name_source
from executorch_mm._loading.model import load_model
from executorch_mm._loading.option_checks import optional_path
from executorch_mm._loading.options import CacheBytes, ConversationOptions, PathLike, core_options
from executorch_mm.errors import ContractError, InputError, UnknownOptionError
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Buffer, Unpack

    from executorch_mm._engine.constraint import Constraints
    from executorch_mm._engine.drafting import Drafting


class Loaded:
    """A model; the parameters and errors are those of `MultimodalRunner`.

    Args:
        is_seq2seq: Whether it has to be one whose encoder reads texts, or must not be.

    Attributes:
        tokenizer: Of the model.
        encoder: Turns prompts into what a session reads.
        eos_ids: Tokens that end an answer.
        folders: Where files of the model may be.
        chat_folders: The same, where a chat template may be, the tokenizer's first.
        identity: Of model and tokenizer, for files.
        source: The file and its size.
        is_isolated: Whether the model runs in a process of its own.
        adapters: Names of the weights that are loaded beside the model's own.
        sessions: Those that are in use.
        prefixes: What they have read, for those that begin the same way.
        encoded: What encoders have made, for all of them.
        admission: How many requests may be under way at a time.
        drafting: The draft model, if there is one.
        load_start_ns: When loading began.
        load_ns: How long it took.
    """

    def __init__(
        self,
        model_path: PathLike | Buffer,
        tokenizer_path: PathLike | Tokenizer | None,
        data_path: PathLike | Sequence[PathLike],
        processor_path: PathLike | None,
        audio_preprocessor: PathLike | None,
        default_caches: CacheBytes | None = None,
        *,
        is_seq2seq: bool = False,
        **options: Unpack[ConversationOptions],
    ) -> None:
        self.load_start_ns = _core.now_ns()
        self.admission = Admission()
        self.adapters: list[str] = []
        UnknownOptionError._check(options, ConversationOptions.__annotations__, {})
        has_prefixes = "prefix_cache_bytes" in options
        draft = options.pop("draft_model", None)
        caches = CacheBytes.taken(options, default_caches or CacheBytes())
        model_path, data_path = in_bundle(model_path, data_path)
        loading = core_options(model_path, data_path, **options)  # type: ignore[misc]
        from executorch_mm._loading.isolated import loader  # here: imports are to be fast

        self.is_isolated = options.get("isolate", False)
        load = loader(_core.Session.load, model_path, data_path, options)
        session, self.tokenizer, search_folders = load_model(loading, tokenizer_path, load)
        self.prefixes = PrefixStore(caches.prefixes)
        self.encoded = _core.EncoderCache(caches.encoders)
        if caches.encoders > 0:
            session.keep_encoded(self.encoded)
        if has_prefixes and caches.prefixes > 0:
            _expect_siblings(session)
        contract = session.contract
        _expect_kind(contract, is_seq2seq)
        processor = optional_path(processor_path, "processor_path")
        self.folders = search_folders
        self.chat_folders = search_folders[::-1]
        mel = optional_path(audio_preprocessor, "audio_preprocessor")
        self.encoder = PromptEncoder(
            contract, self.tokenizer, processor, search_folders, mel, tells_content=any(caches)
        )
        from executorch_mm._loading.end_tokens import end_tokens

        self.eos_ids = end_tokens(contract.eos_ids, self.tokenizer, search_folders)
        self.drafting: Drafting | None = None
        if draft is not None:
            from executorch_mm._engine.drafting import load_drafting  # here: few models have a draft

            self.drafting = load_drafting(draft, model_path, data_path, self.tokenizer, contract, options)
        self.source = name_source(model_path)
        self.identity = ModelIdentity(model_path, data_path, self.tokenizer)
        self.sessions: weakref.WeakSet[LoadedModel] = weakref.WeakSet()
        self._first = [session]
        self._num_users = 0
        self._change = threading.Lock()
        self._vocab_size = contract.vocab_size
        self.load_ns = _core.now_ns() - self.load_start_ns

    def take_first(self, chunk: int | None = None) -> _core.Session:
        """The session that was made with the model, for one who asks once.

        Args:
            chunk: Positions of a prompt that one call of the model, or its draft model, reads at most; None
                for as many as the program takes.
        """
        first = self._first.pop()
        if chunk is not None:
            first.limit_chunks(chunk)
            if self.drafting is not None:
                self.drafting.limit_chunks(chunk)
        return first

    def enter(self) -> None:
        """Somebody uses the model."""
        with self._change:
            self._num_users += 1

    def leave(self) -> None:
        """Somebody does so no more; what holds the model is let go with the last."""
        with self._change:
            self._num_users -= 1
            if self._num_users == 0:
                del self.encoder
                self.clear_caches()
                if self.drafting is not None:
                    self.drafting.close()

    def clear_caches(self) -> None:
        """Forgets what was read and encoded before."""
        self.prefixes.clear()
        self.encoded.clear()

    @BuiltOnce
    def constraints(self) -> Constraints:
        """Of answers with a `response_format`."""
        from executorch_mm._engine.constraint import Constraints  # here: few requests need it

        return Constraints(self.tokenizer, self.eos_ids, self._vocab_size)


def _expect_siblings(session: _core.Session) -> None:
    try:
        session.another()
    except InputError as error:
        raise InputError(f"prefix_cache_bytes: expected 0 for a model of one conversation: {error}") from None


def _expect_kind(contract: _core.Contract, is_seq2seq: bool) -> None:
    if contract.is_speech:
        raise ContractError("the program hears audio and writes down what is said: use SpeechRunner")
    if contract.is_seq2seq and not is_seq2seq:
        raise ContractError("the program has an encoder that reads the text to answer: use Seq2SeqRunner")
    if is_seq2seq and not contract.is_seq2seq:
        raise ContractError("the program has no encoder of texts beside its decoder: try MultimodalRunner")
