"""Many audio clips for one speech model: several sessions write them down at the same time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Literal, overload

from executorch_mm._engine.ahead import OnError, checked_ahead, checked_on_error, checked_requests
from executorch_mm._engine.team import by_sessions, checked_sessions
from executorch_mm._loading.shown_options import show_options
from executorch_mm.errors import ExecutorchMMError
from executorch_mm.speech._requests import SpeechRequest
from executorch_mm.speech.config import SHOWN, SpeechConfig, SpeechOptions, with_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from executorch_mm.speech._transcriber import Speech
    from executorch_mm.speech.model import SpeechSession
    from executorch_mm.speech.transcription import Transcription

# Twice as many gain less than a tenth, for 37 MB each with Whisper base.
_TOGETHER = 8


class SpeechMap:
    """Transcriptions of many clips, for a model that has sessions."""

    @abstractmethod
    def session(self) -> SpeechSession:
        """Another one that transcribes."""

    @abstractmethod
    def _reads_together(self) -> bool:
        """Whether a call of the decoder may read tokens of several windows."""

    @overload
    def map(
        self,
        clips: Iterable[Speech],
        config: SpeechConfig | None = None,
        *,
        sampling_rate: int | None = None,
        num_sessions: int | None = None,
        prefetch: int = 1,
        on_error: Literal["raise"] = "raise",
        **options: Unpack[SpeechOptions],
    ) -> Generator[Transcription, None, None]: ...

    @overload
    def map(
        self,
        clips: Iterable[Speech],
        config: SpeechConfig | None = None,
        *,
        sampling_rate: int | None = None,
        num_sessions: int | None = None,
        prefetch: int = 1,
        on_error: Literal["return"],
        **options: Unpack[SpeechOptions],
    ) -> Generator[Transcription | ExecutorchMMError, None, None]: ...

    def map(
        self,
        clips: Iterable[Speech],
        config: SpeechConfig | None = None,
        *,
        sampling_rate: int | None = None,
        num_sessions: int | None = None,
        prefetch: int = 1,
        on_error: OnError = "raise",
        **options: Unpack[SpeechOptions],
    ) -> Generator[Transcription | ExecutorchMMError, None, None]:
        """Writes down many audio clips in their order, as `SpeechRunner.map` does, several at a time.

        Args:
            clips: As there. Not more than `num_sessions` + `prefetch` of them are in memory at a time.
            config: As there. A `vad_filter` of your own is called from several threads.
            sampling_rate: As there.
            num_sessions: Sessions that hear at the same time, each a clip of its own in a thread: windows of
                several clips take turns with the model, and features of one, and looking for speech in it, go
                on while another has it. 1 to 256; None takes 8 where a call of the program's decoder may
                read tokens of several windows, else 1.
            prefetch: As there.
            on_error: As there.
            **options: As there.

        Returns:
            A generator. Clips are heard while nobody asks for the next one. Closing it, or leaving its loop,
            stops those under way and closes the sessions.

        Raises:
            InputError: An option is wrong.
            ExecutorchMMError: As there.
        """
        config = with_options(config, options)
        if num_sessions is None:
            num_sessions = _TOGETHER if self._reads_together() else 1

        def prepare(session: SpeechSession, clip: Speech) -> Speech:
            return session._requests.model.prepare(clip, sampling_rate)

        def hear(session: SpeechSession, clip: Speech, is_stopped: Callable[[], bool]) -> Transcription:
            return session._requests.whole(SpeechRequest(clip, config, None, None), is_stopped)

        return by_sessions(
            self.session,
            checked_sessions(num_sessions),
            checked_requests(clips, "clips"),
            prepare,
            hear,
            checked_ahead(prefetch),
            checked_on_error(on_error),
        )


show_options(SpeechMap, SHOWN)
