"""A smaller model that drafts answers, which the larger one checks."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from executorch_mm import _core
from executorch_mm._files.model_files import is_export_folder, num_bytes
from executorch_mm._files.paths import checked_path
from executorch_mm._loading.identity import ModelIdentity
from executorch_mm._loading.isolated import loader
from executorch_mm._loading.model import load_model
from executorch_mm._loading.options import (
    ConversationOptions,
    DraftModel,
    PathLike,
    RunnerOptions,
    core_options,
)
from executorch_mm._loading.pretrained import find_model
from executorch_mm._tokenizers.detect import find_in
from executorch_mm.errors import InputError, TokenizerError, shown
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Buffer

_LEAST_COST = 0.01


class Drafting:
    """A draft model.

    Args:
        session: Of the core, at its beginning.
        cost: Of one of its calls, in calls of the model that answers.
        is_estimate: It holds until both have been measured.
    """

    def __init__(self, session: _core.Session, cost: float, is_estimate: bool) -> None:
        self._session = [session]
        self._change = threading.Lock()
        self.cost = cost
        self._is_estimate = is_estimate
        self._credit = _core.DraftCredit()

    def limit_chunks(self, num_positions: int) -> None:
        """A call reads at most so many positions."""
        self._session[0].limit_chunks(num_positions)

    def drafter(self) -> _core.Drafter:
        """Drafts the answers of one conversation."""
        with self._change:
            return _core.Drafter(self._session[0].another(), self.cost, self._is_estimate, self._credit)

    def fork(self, drafter: _core.Drafter) -> _core.Drafter:
        """Drafts the answers of a fork of the conversation."""
        return _core.Drafter(drafter.session.fork(), self.cost, self._is_estimate, self._credit)

    def close(self) -> None:
        """Lets the model go."""
        with self._change:
            self._session.clear()


def expect_checks(contract: _core.Contract) -> None:
    """Refuses a model that cannot check several tokens in one call, or not go back behind them.

    Raises:
        InputError: It says which of the two.
    """
    decoder = contract.decoder
    if not contract.all_logits or contract.max_chunk < 2:
        raise InputError(
            "draft_model: expected with it a model that gives logits for each token of a call, "
            f"{decoder} gives those of the last one"
        )
    if contract.is_recurrent:
        raise InputError(
            f"draft_model: expected with it a model that can go back in its context, {decoder} has a "
            "recurrent state"
        )


def load_drafting(
    given: object,
    model: PathLike | Buffer,
    data: PathLike | Sequence[PathLike],
    tokenizer: Tokenizer,
    contract: _core.Contract,
    options: ConversationOptions,
) -> Drafting:
    """Loads a draft model.

    Args:
        given: The option `draft_model`.
        model: The one that answers.
        data: Its .ptd files.
        tokenizer: Of that one.
        contract: The same.
        options: It was loaded with these.

    Raises:
        InputError: It does not fit that model.
        ModelLoadError, ContractError, TokenizerError: Of its files.
    """
    expect_checks(contract)
    draft = given if isinstance(given, DraftModel) else _draft_at(given)
    path, beside, found = _files(draft)
    data_path = draft.data_path or found
    names = ("load_mode", "num_threads", "xnnpack", "isolate")
    how = cast(RunnerOptions, {name: value for name, value in options.items() if name in names})
    own = draft.tokenizer_path if draft.tokenizer_path is not None else _tokenizer_in(beside)
    session, its_tokenizer, _ = load_model(
        core_options(path, data_path, **how),
        tokenizer if own is None else own,
        loader(_core.Session.load, path, data_path, how),
    )
    _expect_kind(session.contract)
    if own is not None:
        _expect_same(its_tokenizer, tokenizer)
    elif session.contract.vocab_size != contract.vocab_size:
        raise InputError(
            f"draft_model: expected logits of {contract.vocab_size} tokens where it has no tokenizer of its "
            f"own, got {session.contract.vocab_size}"
        )
    try:
        session.another()
    except InputError as error:
        raise InputError(f"draft_model: expected a model of many conversations: {error}") from None
    cost = draft.cost
    if cost is None:
        cost = max(_LEAST_COST, _num_bytes(path, data_path) / _num_bytes(model, data))
    return Drafting(session, cost, draft.cost is None)


def _draft_at(given: object) -> DraftModel:
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(f"draft_model: expected a path, a DraftModel or None, got {shown(given)}")
    return DraftModel(given)


def _files(draft: DraftModel) -> tuple[Path, Path, Sequence[PathLike]]:
    """The program, where its tokenizer may be, and its .ptd files where they are not said."""
    path = checked_path(draft.model_path, "draft_model")
    if not path.is_dir() or is_export_folder(path):
        return path, path if path.is_dir() else path.parent, ()
    files = find_model(path)
    return files.model, files.tokenizer, files.data


def _tokenizer_in(folder: Path) -> Path | None:
    try:
        find_in(folder)
    except TokenizerError:
        return None
    return folder


def _expect_kind(contract: _core.Contract) -> None:
    if contract.is_speech or contract.is_seq2seq:
        raise InputError("draft_model: expected a model that goes on with a text, got one with an encoder")
    if contract.is_recurrent:
        raise InputError(
            f"draft_model: expected a model that can go back in its context, {contract.decoder} has a "
            "recurrent state"
        )


def _expect_same(draft: Tokenizer, model: Tokenizer) -> None:
    if draft is model:
        return
    if draft.vocab_size != model.vocab_size:
        raise InputError(
            f"draft_model: expected the model's tokenizer of {model.vocab_size} tokens, got one of "
            f"{draft.vocab_size}"
        )
    one, other = (ModelIdentity(b"", (), tokenizer).tokenizer for tokenizer in (draft, model))
    if one != other:
        raise InputError("draft_model: expected the model's tokenizer, got one with other tokens")


def _num_bytes(model: PathLike | Buffer, data: PathLike | Sequence[PathLike]) -> int:
    data = [data] if isinstance(data, (str, os.PathLike)) else data
    paths = [*([model] if isinstance(model, (str, os.PathLike)) else []), *data]
    total = 0 if isinstance(model, (str, os.PathLike)) else memoryview(model).nbytes
    return total + sum(num_bytes(Path(os.fspath(path))) for path in paths)
