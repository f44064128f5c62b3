"""Requests to a model whose encoder reads a text and whose decoder writes another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm._engine.requests import Requests
from executorch_mm._files.side_files import declared_id
from executorch_mm.arrays import numpy as np
from executorch_mm.errors import ContractError, InputError

if TYPE_CHECKING:
    from executorch_mm._engine.access import Progress
    from executorch_mm._engine.answer import Answers
    from executorch_mm._engine.answer_text import Pieces
    from executorch_mm._engine.loaded import Loaded
    from executorch_mm._engine.prompts import AboutPrompt
    from executorch_mm._engine.requests import Request
    from executorch_mm.config import GenerationConfig
    from executorch_mm.inputs import MultimodalInput

_TEXTS = ("text", "tokens")


class Seq2SeqRequests(Requests):
    """Serves the requests to a session; each begins anew.

    Args:
        session: The session; nobody else uses it.
        loaded: The model.

    Raises:
        ContractError: Nothing names the token that the decoder begins with.
    """

    def __init__(self, session: _core.Session, loaded: Loaded) -> None:
        self._start = start_tokens(session.contract, loaded)
        self._num_source = 0  # tokens of the last text
        super().__init__(session, loaded, "runner")

    def _answer(
        self, session: _core.Session, request: Request, progress: Progress | None, answers: Answers
    ) -> Pieces:
        session.reset()
        yield from super()._answer(session, request, progress, answers)

    def _prepare(
        self, _session: _core.Session, /, parts: list[MultimodalInput], config: GenerationConfig
    ) -> list[_core.PreparedInput]:
        if config.num_bos or config.num_eos:
            raise InputError("num_bos, num_eos: the text gets what its tokenizer puts around it, and no more")
        ids = self._source(parts)
        self._num_source = len(ids)
        return [_core.PreparedInput.source(np.array(ids, np.int64)), _ids(self._start)]

    def _source(self, parts: Sequence[MultimodalInput]) -> list[int]:
        kinds = [part.kind for part in parts]
        if len(kinds) != 1 or kinds[0] not in _TEXTS:
            raise InputError(
                f"prompt: expected one text, or one input of token ids, got {', '.join(kinds) or 'nothing'}"
            )
        value = parts[0].value
        if not isinstance(value, str):
            return [int(token) for token in np.asarray(value)]
        if encode_whole := getattr(self.tokenizer, "encode_whole", None):
            ids: list[int] = encode_whole(value)
            return ids
        adds_bos = bool(getattr(self.tokenizer, "adds_bos", False))
        return self.tokenizer.encode(value, add_bos=adds_bos, add_eos=True)

    def _before_answer(self, _session: _core.Session, /) -> list[int]:
        return []

    def _rehearsal(self) -> Iterator[list[_core.PreparedInput]]:
        yield [_core.PreparedInput.source(np.array([0], np.int64)), _ids(self._start)]

    def about_prompt(self, session: _core.Session) -> AboutPrompt:
        return {**super().about_prompt(session), "num_known": self._num_source}


def start_tokens(contract: _core.Contract, loaded: Loaded) -> list[int]:
    """What the decoder begins with, as transformers' `generate` finds it.

    Raises:
        ContractError: Nothing names it, or it is beyond the vocabulary.
    """
    named = contract.metadata.get("decoder_start_token_id")
    program = named if isinstance(named, int) and not isinstance(named, bool) else None
    candidates = [
        declared_id(loaded.folders, "decoder_start_token_id"),
        program,
        declared_id(loaded.folders, "bos_token_id"),
        contract.bos_id,
    ]
    start = next((token for token in candidates if token is not None), None)
    if start is None:
        raise ContractError(
            "decoder_start_token_id: expected it in generation_config.json or config.json beside the model, "
            "or as a constant method of the program, got none of them"
        )
    forced = declared_id(loaded.folders, "forced_bos_token_id")
    tokens = [start] if forced is None else [start, forced]
    if any(not 0 <= token < contract.vocab_size for token in tokens):
        got = ", ".join(map(str, tokens))
        raise ContractError(f"decoder_start_token_id: expected 0 to {contract.vocab_size - 1}, got {got}")
    return tokens


def _ids(ids: Sequence[int]) -> _core.PreparedInput:
    return _core.PreparedInput.tokens(np.array(ids, np.int64))
