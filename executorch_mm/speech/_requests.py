"""Requests of a speech runner: one at a time, from the sound to the last segment."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Generic

from executorch_mm._engine.access import Access, SessionT
from executorch_mm.preprocess import Sound
from executorch_mm.speech._model import HeardT, Hearing, SpeechModel, SpeechProgress
from executorch_mm.speech.config import SpeechConfig
from executorch_mm.speech.segment import SpeechEvent
from executorch_mm.speech.transcription import Transcription

if TYPE_CHECKING:
    from executorch_mm.speech._model import Speech


class SpeechRequests(Access[SessionT], Generic[SessionT, HeardT]):
    """Serves the requests to a session.

    Args:
        session: The session; nobody else uses it.
        model: What the session plays.
        load_start_ns: When loading began; it ends now.
    """

    def __init__(self, session: SessionT, model: SpeechModel[SessionT, HeardT], load_start_ns: int) -> None:
        super().__init__(session, load_start_ns)
        self.model = model

    def events(
        self,
        audio: Speech,
        config: SpeechConfig,
        sampling_rate: int | None,
        progress: SpeechProgress | None,
        on_end: Callable[[Transcription], object] = lambda _: None,
    ) -> Generator[SpeechEvent, None, None]:
        """What is said, bit by bit; `on_end` gets all of it when the sound is over or left."""
        return self.stream(
            lambda session: self._hear(session, audio, config, sampling_rate, progress, on_end)
        )

    def events_async(
        self,
        audio: Speech,
        config: SpeechConfig,
        sampling_rate: int | None,
        progress: SpeechProgress | None,
        on_end: Callable[[Transcription], object] = lambda _: None,
    ) -> AsyncGenerator[SpeechEvent, None]:
        """`events` for a task."""
        return self.stream_async(
            lambda session: self._hear(session, audio, config, sampling_rate, progress, on_end)
        )

    def _hear(
        self,
        session: SessionT,
        audio: Speech,
        config: SpeechConfig,
        sampling_rate: int | None,
        progress: SpeechProgress | None,
        on_end: Callable[[Transcription], object],
    ) -> Generator[SpeechEvent, None, None]:
        self.model.check(config)
        heard = self.model.prepare(audio, sampling_rate)
        hearing = Hearing()
        try:
            yield from self.model.transcribe(
                session, heard, config, hearing, progress or (lambda _done, _total: None)
            )
        finally:
            self.stats = self.make_stats(
                session,
                finish_reason=hearing.finish_reason,
                token_times_ns=tuple(hearing.token_times_ns),
                prepare_ns=hearing.prepare_ns,
                input_notes=heard.notes if isinstance(heard, Sound) else (),
            )
            on_end(
                Transcription(
                    text="".join(segment.text for segment in hearing.segments),
                    segments=tuple(hearing.segments),
                    language=hearing.language,
                    duration=self.model.seconds(heard),
                    stats=self.stats,
                )
            )
