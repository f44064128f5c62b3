"""Requests of a speech runner: one at a time, from the audio to the last segment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Generic, NamedTuple

from executorch_mm._engine.access import Access, SessionT
from executorch_mm._engine.callbacks import checked_callback
from executorch_mm._engine.streams import AsyncStream, Stream
from executorch_mm.preprocess import Waveform
from executorch_mm.speech._model import ClipT, Hearing, SpeechModel, SpeechProgress
from executorch_mm.speech.config import SpeechConfig
from executorch_mm.speech.segment import SpeechEvent
from executorch_mm.speech.transcription import Transcription

if TYPE_CHECKING:
    from executorch_mm.speech._model import Speech


class SpeechRequest(NamedTuple):
    """What is asked of the model; the fields are the parameters of `SpeechRunner.transcribe`."""

    audio: Speech
    config: SpeechConfig
    sampling_rate: int | None
    progress: SpeechProgress | None


class SpeechRequests(Access[SessionT], Generic[SessionT, ClipT]):
    """Serves the requests to a session.

    Args:
        session: The session; nobody else uses it.
        model: What the session plays.
        load_start_ns: When loading began; it ends now.
    """

    def __init__(self, session: SessionT, model: SpeechModel[SessionT, ClipT], load_start_ns: int) -> None:
        super().__init__(session, load_start_ns)
        self.model = model

    def whole(self, request: SpeechRequest) -> Transcription:
        """All that is said."""
        return self.serve(lambda session: self._whole(session, request))

    async def whole_async(self, request: SpeechRequest) -> Transcription:
        """`whole` for a task."""
        return await self.run_async(_ready(request), self._whole)

    def events(self, request: SpeechRequest) -> Stream[SpeechEvent, Transcription]:
        """What is said, bit by bit."""
        made: list[Transcription] = []
        return Stream(self.stream(lambda session: self._hear(session, request, made)), lambda: _last(made))

    def events_async(self, request: SpeechRequest) -> AsyncStream[SpeechEvent, Transcription]:
        """`events` for a task."""
        made: list[Transcription] = []
        return self.stream_async(
            _ready(request),
            lambda session, request: self._hear(session, request, made),
            lambda request: request.config.timeout,
            lambda: _last(made),
        )

    def _whole(self, session: SessionT, request: SpeechRequest) -> Transcription:
        made: list[Transcription] = []
        for _ in self.pieces(session, lambda session: self._hear(session, request, made)):
            pass
        return made[0]

    def _hear(
        self,
        session: SessionT,
        request: SpeechRequest,
        made: list[Transcription],
    ) -> Generator[SpeechEvent, None, None]:
        config = request.config
        progress = checked_callback(_ignore if request.progress is None else request.progress, "progress")
        self.model.check(config)
        clip = self.model.prepare(request.audio, request.sampling_rate)
        hearing = Hearing()
        try:
            yield from self.model.transcribe(session, clip, config, hearing, progress)
        finally:
            self.stats = self.make_stats(
                session,
                finish_reason=hearing.finish_reason,
                token_times_ns=tuple(hearing.token_times_ns),
                prepare_ns=hearing.prepare_ns,
                input_notes=clip.notes if isinstance(clip, Waveform) else (),
            )
            made.append(
                Transcription(
                    text="".join(segment.text for segment in hearing.segments),
                    segments=tuple(hearing.segments),
                    language=hearing.language,
                    duration=self.model.seconds(clip),
                    stats=self.stats,
                )
            )


def _ignore(_done: float, _total: float) -> None:
    pass


def _ready(request: SpeechRequest) -> Callable[[], Awaitable[SpeechRequest]]:
    async def prepare() -> SpeechRequest:
        return request

    return prepare


def _last(made: list[Transcription]) -> Transcription | None:
    return made[-1] if made else None
