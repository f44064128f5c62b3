"""A conversation with a model that others use too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm._engine.access import checked_priority
from executorch_mm._engine.loaded import Loaded
from executorch_mm.errors import InputError
from executorch_mm.runner.conversation import Conversation

if TYPE_CHECKING:
    from typing_extensions import Self


class Session(Conversation):
    """One of several conversations with a model, from `MultimodalModel.session()` or `fork()`.

    It can do all that a `MultimodalRunner` can, and has a position, a history and a cache of its own.
    Sessions may be used at the same time, from threads and tasks: the model then works for each in turn, one
    call at a time. A session serves one request at a time, as a runner does.

    Examples:
        >>> from executorch_mm import MultimodalModel
        >>> with MultimodalModel.demo() as model, model.session() as session:
        ...     position = session.prefill("how many shapes are there?")
        ...     with session.fork() as other:
        ...         other.position == position
        True
    """

    _what = "session"

    def __init__(self) -> None:
        """Sessions are made by a model, and by `fork()`.

        Raises:
            InputError: Always.
        """
        raise InputError("Session: expected model.session() or fork() to make one")

    @classmethod
    def _of(
        cls,
        loaded: Loaded,
        session: _core.Session,
        media: Sequence[bytes] = (),
        adapter: str | None = None,
    ) -> Self:
        made = cls.__new__(cls)
        made._begin(loaded, session, media, adapter)
        loaded.sessions.add(made)
        return made

    @property
    def priority(self) -> int:
        """Of the sessions that wait for the model the one with the lowest goes first; may be set any time.

        Sessions of the same priority take turns. One with a higher number waits as long as others with a
        lower one have requests.
        """
        return self._session.priority

    @priority.setter
    def priority(self, priority: int) -> None:
        self._session.priority = checked_priority(priority)

    def close(self) -> None:
        """Frees the memory of the conversation. Later calls raise `ExecutorchMMError`.

        Raises:
            BusyError: A request is running.
        """
        self._close()
