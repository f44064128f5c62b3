"""A speech model of either kind and what belongs to it, loaded once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm._loading.admission import Admission
from executorch_mm._loading.bundle import in_bundle
from executorch_mm._loading.loaded_model import name_source
from executorch_mm._loading.model import load_model
from executorch_mm._loading.option_checks import optional_path
from executorch_mm._loading.options import PathLike, RunnerOptions, core_options
from executorch_mm.errors import ContractError
from executorch_mm.speech._requests import SpeechRequests
from executorch_mm.speech._transducer import TransducerModel
from executorch_mm.speech._whisper import WhisperModel
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from executorch_mm.speech._methods import TransducerRequests, WhisperRequests


class LoadedSpeech:
    """A model; the parameters and errors are those of `SpeechRunner`.

    Attributes:
        tokenizer: Of the model.
        source: The file and its size.
        first: The session that was made with the model.
        admission: How many requests may be under way at a time.
    """

    def __init__(
        self,
        model_path: PathLike,
        tokenizer_path: PathLike | Tokenizer | None,
        data_path: PathLike | Sequence[PathLike],
        processor_path: PathLike | None,
        **options: Unpack[RunnerOptions],
    ) -> None:
        self._start_ns = _core.now_ns()
        model_path, data_path = in_bundle(model_path, data_path)
        loading = core_options(model_path, data_path, **options)
        from executorch_mm._loading.isolated import loader  # here: imports are to be fast

        load = loader(_core.load_speech, model_path, data_path, options)
        self.first, self.tokenizer, folders = load_model(loading, tokenizer_path, load)
        self.source = name_source(model_path)
        self.admission = Admission()
        self._change = threading.Lock()
        if isinstance(self.first, _core.TransducerDecoder):
            self._transducer = TransducerModel(self.first, self.tokenizer)
        elif not self.first.contract.is_speech:
            other = "Seq2SeqRunner" if self.first.contract.is_seq2seq else "MultimodalRunner"
            raise ContractError(f"the program has no encoder of audio beside its decoder: try {other}")
        else:
            processor = optional_path(processor_path, "processor_path")
            self._whisper = WhisperModel(self.first.contract, self.tokenizer, folders, processor)
        self._load_ns = _core.now_ns() - self._start_ns

    def requests(self) -> WhisperRequests | TransducerRequests:
        """Of the one session that a runner has."""
        if isinstance(self.first, _core.TransducerDecoder):
            return SpeechRequests(self.first, self._transducer, self._start_ns, self._load_ns)
        return SpeechRequests(self.first, self._whisper, self._start_ns, self._load_ns)

    def more_requests(self, priority: int) -> WhisperRequests | TransducerRequests:
        """Of another session."""
        with self._change:
            session = self.first.another()
        session.priority = priority
        about = (self._start_ns, self._load_ns, "session", self.admission)
        if isinstance(session, _core.TransducerDecoder):
            return SpeechRequests(session, self._transducer, *about)
        return SpeechRequests(session, self._whisper, *about)
