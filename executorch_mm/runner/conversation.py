"""What runners and sessions have in common: one conversation with a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm._engine.adapters import AdapterMethods
from executorch_mm._engine.answer_methods import AnswerMethods
from executorch_mm._engine.conversation_methods import ConversationMethods
from executorch_mm._engine.loaded import Loaded
from executorch_mm._engine.requests import Requests
from executorch_mm._engine.score_methods import ScoreMethods
from executorch_mm._loading.lazy import BuiltOnce
from executorch_mm._loading.loaded_model import LoadedModel
from executorch_mm.chat.decision_methods import DecisionMethods
from executorch_mm.chat.tool_methods import ToolMethods
from executorch_mm.runner.map_methods import MapMethods
from executorch_mm.stats import Stats, counted
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from executorch_mm.chat.chat import Chat
    from executorch_mm.runner.session import Session


class Conversation(
    LoadedModel,
    AnswerMethods,
    ConversationMethods,
    AdapterMethods,
    ScoreMethods,
    MapMethods,
    DecisionMethods,
    ToolMethods,
):
    """One conversation with a model."""

    _what = "runner"

    def _begin(
        self,
        loaded: Loaded,
        session: _core.Session,
        media: Sequence[bytes] = (),
        adapter: str | None = None,
    ) -> None:
        """Takes over a session of the core.

        Args:
            loaded: The model.
            session: Nobody else uses it.
            media: Digests of the runs of images and audio in it.
            adapter: The one in use.
        """
        self._loaded = loaded
        self._source = loaded.source
        self._adapters = loaded.adapters
        self._adapter = adapter
        self._identity = loaded.identity
        self._requests = Requests(session, loaded, self._what)
        self._requests.prefix_cache.remember(media)

    def fork(self) -> Session:
        """Another conversation that has read what this one has; the two are independent from here on.

        Nothing is read again, and on Linux nothing is copied: memory is taken as the two write to it. The
        weights are there once. More: https://executorch-mm.example/docs/sessions.html

        Returns:
            A session of the same model, with this one's method, adapter and priority; to be closed.

        Raises:
            InputError: The model holds one conversation only: its state lies in a delegate.
            ExecutionError: The state was lost when a call failed.
            BusyError: A request is running.
        """
        from executorch_mm.runner.session import Session

        def fork(session: _core.Session) -> Session:
            media = self._requests.prefix_cache.media
            made = Session._of(self._loaded, session.fork(), media, self._adapter)
            made._requests.draft_as(self._requests)
            return made

        return self._requests.run(fork)

    def stop(self) -> None:
        """Ends the running request before its next token, prompt chunk or encoder call; from any thread.

        A prompt that was being read is taken back. Without a running request nothing happens.
        """
        self._requests.stop()

    def _facts(self) -> list[str]:
        contract, session = self.contract, self._session
        encoders = [("images", contract.has_image_encoder), ("audio", contract.has_audio_encoder)]
        kinds = ["text", *(name for name, is_there in encoders if is_there)]
        return [
            "+".join(kinds),
            f"context {session.position} of {contract.capacity}",
            counted(session.num_threads, "thread"),
        ]

    @property
    def stats(self) -> Stats:
        """What the last finished request cost."""
        return self._requests.stats

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer in use."""
        return self._loaded.tokenizer

    def _close(self) -> None:
        try:
            self._requests.close()
        finally:
            if (chat := vars(self).get("_chat")) is not None:
                chat.forget_templates()  # and the processes that some have

    @BuiltOnce
    def _chat(self) -> Chat:
        from executorch_mm.chat.chat import Chat

        return Chat(
            self._loaded.chat_folders,
            self.tokenizer,
            self.contract,
            self._requests.cut,
            trusts_template=not self._loaded.is_isolated,
        )
