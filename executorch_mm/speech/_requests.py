"""Requests of a speech runner: one at a time, from the audio to the last segment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, cast

from executorch_mm import _core
from executorch_mm._engine.access import Access, SessionT
from executorch_mm._engine.callbacks import checked_callback
from executorch_mm._engine.streams import AsyncStream, Stream
from executorch_mm._loading.admission import Admission
from executorch_mm.errors import InputError, shown
from executorch_mm.preprocess import Waveform
from executorch_mm.speech._regions import SpeechPart, parts_of
from executorch_mm.speech._transcriber import ClipT, Hearing, SpeechProgress, Transcriber
from executorch_mm.speech.config import SpeechConfig
from executorch_mm.speech.segment import SpeechEvent
from executorch_mm.speech.transcription import Transcription
from executorch_mm.speech.vad import EnergyVad, VoiceActivityDetector

if TYPE_CHECKING:
    from executorch_mm.speech._transcriber import Speech


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
        load_start_ns: As in `Access`, like the next ones.
        load_ns: The same.
        what: The same.
        admission: The same.
    """

    def __init__(
        self,
        session: SessionT,
        model: Transcriber[SessionT, ClipT],
        load_start_ns: int,
        load_ns: int | None = None,
        what: str = "runner",
        admission: Admission | None = None,
    ) -> None:
        super().__init__(session, load_start_ns, load_ns, what, admission)
        self.model = model

    def whole(self, request: SpeechRequest, is_stopped: Callable[[], bool] = lambda: False) -> Transcription:
        """All that is said.

        Args:
            request: What is asked.
            is_stopped: Whether a `stop()` came before the request began.
        """

        def hear(session: SessionT) -> Transcription:
            if is_stopped():
                session.cancel()
            return self._whole(session, request)

        return self.serve(hear)

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
        duration = self.model.seconds(clip)
        parts: list[SpeechPart] | None = None
        try:
            if config.vad_filter is False:
                yield from self.model.transcribe(session, clip, config, hearing, progress)
            else:
                start_ns = _core.now_ns()
                parts = _spoken(clip, config, self.model.window_seconds)
                hearing.prepare_ns = _core.now_ns() - start_ns
                yield from self._hear_parts(session, parts, duration, config, hearing, progress)
        finally:
            stats = self.make_stats(
                session,
                finish_reason=hearing.finish_reason,
                token_times_ns=tuple(hearing.token_times_ns),
                prepare_ns=hearing.prepare_ns,
                input_notes=clip.notes if isinstance(clip, Waveform) else (),
            )
            self.stats = hearing.costs.added_to(stats)
            made.append(
                Transcription(
                    text="".join(segment.text for segment in hearing.segments),
                    segments=tuple(hearing.segments),
                    language=hearing.language,
                    duration=duration,
                    stats=self.stats,
                    duration_after_vad=None if parts is None else sum(map(_seconds, parts)),
                )
            )

    def _hear_parts(
        self,
        session: SessionT,
        parts: Sequence[SpeechPart],
        duration: float,
        config: SpeechConfig,
        hearing: Hearing,
        progress: SpeechProgress,
    ) -> Generator[SpeechEvent, None, None]:
        for part in parts:
            heard = hearing.of_part()

            def report(done: float, _total: float, start: float = part.start) -> None:
                progress(min(start + done, duration), duration)

            # A part is of the same kind as the clip.
            clip = cast(ClipT, part.waveform)
            try:
                for event in self.model.transcribe(session, clip, config, heard, report):
                    yield part.placed(event)
            finally:
                hearing.add(heard, part.placed_segment)
            if heard.finish_reason != "stop":
                return
        progress(duration, duration)
        hearing.finish_reason = "stop"


def _spoken(clip: object, config: SpeechConfig, window: float) -> list[SpeechPart]:
    if not isinstance(clip, Waveform):
        raise InputError(f"vad_filter: expected an audio clip to look for speech in, got {shown(clip)}")
    detector = EnergyVad() if config.vad_filter is True else cast("VoiceActivityDetector", config.vad_filter)
    return parts_of(clip, detector(clip), window)


def _seconds(part: SpeechPart) -> float:
    return len(part.waveform.samples) / part.waveform.sampling_rate


def _ignore(_done: float, _total: float) -> None:
    pass


def _ready(request: SpeechRequest) -> Callable[[], Awaitable[SpeechRequest]]:
    async def prepare() -> SpeechRequest:
        return request

    return prepare


def _last(made: list[Transcription]) -> Transcription | None:
    return made[-1] if made else None
