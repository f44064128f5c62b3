"""What runners and sessions of speech models have in common: audio in, what was said out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from executorch_mm import _core
from executorch_mm._engine.ahead import (
    OnError,
    checked_ahead,
    checked_on_error,
    checked_requests,
    in_order,
    result_or_error,
)
from executorch_mm._engine.streams import AsyncStream, Stream
from executorch_mm._loading.loaded_model import LoadedModel
from executorch_mm._loading.shown_options import show_options
from executorch_mm.errors import ExecutorchMMError, InputError
from executorch_mm.speech._live_audio import LiveAudio
from executorch_mm.speech._live_chunks import ChunkedLive
from executorch_mm.speech._live_windows import WindowedLive
from executorch_mm.speech._requests import SpeechRequest, SpeechRequests
from executorch_mm.speech._transcriber import SpeechProgress, Transcriber
from executorch_mm.speech._transducer import TransducerModel
from executorch_mm.speech.config import SHOWN, SpeechConfig, SpeechOptions, with_options
from executorch_mm.speech.live import LiveTranscription, checked_seconds
from executorch_mm.speech.segment import SpeechEvent
from executorch_mm.speech.transcription import Transcription
from executorch_mm.stats import Stats, counted
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from executorch_mm.preprocess import Waveform
    from executorch_mm.speech._transcriber import Speech
    from executorch_mm.speech._transducer import Clip

    WhisperRequests = SpeechRequests[_core.Session, Waveform]
    TransducerRequests = SpeechRequests[_core.TransducerDecoder, Clip]


class SpeechMethods(LoadedModel):
    """Transcribes by the requests of a session, which whoever derives from it makes."""

    _requests: WhisperRequests | TransducerRequests
    _tokenizer: Tokenizer

    def _facts(self) -> list[str]:
        session = self._requests.session
        kind = "transducer" if isinstance(session, _core.TransducerDecoder) else "Whisper"
        return [kind, "audio", counted(session.num_threads, "thread")]

    def transcribe(
        self,
        audio: Speech,
        config: SpeechConfig | None = None,
        *,
        sampling_rate: int | None = None,
        progress: SpeechProgress | None = None,
        **options: Unpack[SpeechOptions],
    ) -> Transcription:
        """Writes down a whole audio clip.

        Args:
            audio: A path, the bytes of an audio file, a file object, a "data:" URI, a `Waveform`; an array,
                or an iterator of arrays, with `sampling_rate`, as in `make_audio_input`. It is brought to the
                model's rate. For a transducer also features, floats (1, bins, columns).
            config: Options; None for the defaults.
            sampling_rate: Samples per second of arrays.
            progress: Gets (seconds heard, seconds in all) before each window and once at the end.
            **options: Fields of `SpeechConfig`, which override those of `config`: language, task, timestamps,
                prompt, temperature and so on.

        Returns:
            The text, its segments and their times, the language. After a `stop()` or `timeout` what there is
            until then; `stats.finish_reason` tells.

        Raises:
            InputError: The audio cannot be read, or an option is wrong for this model.
            MissingDependencyError: The audio is no WAV file of plain samples or needs another sampling rate,
                and the extra `audio` is not installed.
            ExecutionError: The model failed.
            BusyError: Another request is running.
        """
        request = SpeechRequest(audio, with_options(config, options), sampling_rate, progress)
        return self._requests.whole(request)

    def stream_transcribe(
        self,
        audio: Speech,
        config: SpeechConfig | None = None,
        *,
        sampling_rate: int | None = None,
        progress: SpeechProgress | None = None,
        **options: Unpack[SpeechOptions],
    ) -> Stream[SpeechEvent, Transcription]:
        """Writes down an audio clip while it is heard; parameters and errors are those of `transcribe`.

        Yields a `Partial` with each piece of text, and the `Segment`s, which are final, at the end of each
        window. Leaving the loop early closes the stream and ends the request.
        """
        return self._requests.events(
            SpeechRequest(audio, with_options(config, options), sampling_rate, progress)
        )

    async def atranscribe(
        self,
        audio: Speech,
        config: SpeechConfig | None = None,
        *,
        sampling_rate: int | None = None,
        progress: SpeechProgress | None = None,
        **options: Unpack[SpeechOptions],
    ) -> Transcription:
        """`transcribe` for a task, which waits and is cancelled as in `astream_transcribe`."""
        request = SpeechRequest(audio, with_options(config, options), sampling_rate, progress)
        return await self._requests.whole_async(request)

    def astream_transcribe(
        self,
        audio: Speech,
        config: SpeechConfig | None = None,
        *,
        sampling_rate: int | None = None,
        progress: SpeechProgress | None = None,
        **options: Unpack[SpeechOptions],
    ) -> AsyncStream[SpeechEvent, Transcription]:
        """`stream_transcribe` for a task; it waits and is cancelled as `MultimodalRunner.astream` is.

        The model, and with it `progress`, runs in a thread that ends with the stream.
        """
        return self._requests.events_async(
            SpeechRequest(audio, with_options(config, options), sampling_rate, progress)
        )

    @overload
    def map(
        self,
        clips: Iterable[Speech],
        config: SpeechConfig | None = None,
        *,
        sampling_rate: int | None = None,
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
        prefetch: int = 1,
        on_error: OnError = "raise",
        **options: Unpack[SpeechOptions],
    ) -> Generator[Transcription | ExecutorchMMError, None, None]:
        """Writes down many audio clips in their order; the next ones are decoded while the model works.

        Args:
            clips: Any iterable of what `transcribe` takes, a generator too. Not more than `prefetch` + 1 are
                in memory at a time.
            config: As in `transcribe`.
            sampling_rate: Samples per second of arrays.
            prefetch: Clips that are read and brought to the model's rate before their turn, in threads beside
                this one, 0 to 1,024.
            on_error: "raise" ends with the first clip that fails. "return" gives the error in place of its
                transcription and goes on.
            **options: As in `transcribe`.

        Returns:
            A generator. The model runs while the next transcription is asked for.

        Raises:
            InputError: An option is wrong.
            ExecutorchMMError: With "return" too, what is of no single clip: the runner is closed, busy, of
                another process, or the model's own process has ended.
        """
        config = with_options(config, options)
        checked = checked_requests(clips, "clips")
        ahead, wanted = checked_ahead(prefetch), checked_on_error(on_error)
        model = self._requests.model
        prepared = in_order(checked, lambda clip: model.prepare(clip, sampling_rate), ahead)
        return self._transcriptions(prepared, config, wanted)

    def _transcriptions(
        self, prepared: Generator[Callable[[], Speech], None, None], config: SpeechConfig, on_error: OnError
    ) -> Generator[Transcription | ExecutorchMMError, None, None]:
        with closing(prepared):
            for clip in prepared:
                yield result_or_error(lambda: self.transcribe(clip(), config), on_error)  # noqa: B023

    def live(
        self,
        config: SpeechConfig | None = None,
        *,
        sampling_rate: int,
        channels: int = 1,
        step_seconds: float = 0.5,
        pause_seconds: float = 0.8,
        max_seconds_behind: float = 30.0,
        **options: Unpack[SpeechOptions],
    ) -> LiveTranscription:
        """Writes down audio while it comes; see `LiveTranscription`.

        Args:
            config: As in `transcribe`. Of several temperatures the first is used. `vad_filter` names the
                detector that finds pauses; True and False stand for `EnergyVad()`. A transducer whose encoder
                takes chunks refuses it: it hears all audio, and a pause is a time without symbols. `timeout`
                is for each time that the model hears.
            sampling_rate: Samples per second of the chunks.
            channels: Of chunks of bytes, 1 to 8; they are averaged.
            step_seconds: How much new audio there must be before the model hears again, 0.1 or more, and
                a third of what the model hears at a time at most. An encoder of chunks hears each when it is
                complete, whatever this says.
            pause_seconds: A pause of this length makes all before it final, 0.1 to 10.
            max_seconds_behind: How much audio may wait for `step()`, up to 3,600; `push()` refuses more.
            **options: As in `transcribe`.

        Raises:
            InputError: An option is wrong for this model, or the model takes no audio but features.
            MissingDependencyError: The model has another sampling rate and the extra `audio` is not
                installed.
        """
        config = with_options(config, options)
        config = config.replace(temperature=config.temperatures[0])
        model = self._requests.model
        model.check(config)
        longest = model.longest_seconds
        if longest <= 0:
            raise InputError("live: expected a model that takes audio, got one that takes features alone")
        step = checked_seconds(step_seconds, "step_seconds", 0.1, longest / 3)
        pause = checked_seconds(pause_seconds, "pause_seconds", 0.1, 10)
        behind = checked_seconds(max_seconds_behind, "max_seconds_behind", 0.1, 3600)
        audio = LiveAudio(sampling_rate, channels, model.sampling_rate)
        if isinstance(model, TransducerModel) and model.takes_chunks:
            if config.vad_filter is not False:
                raise InputError("vad_filter: an encoder of chunks hears all audio; pauses need no detector")
            requests = cast("TransducerRequests", self._requests)
            return ChunkedLive(requests, model, audio, config, pause, behind)
        if is_accepted(model, config.replace(timestamps=True)):
            config = config.replace(timestamps=True)
        return WindowedLive(
            lambda clip, config: self.transcribe(clip, config, vad_filter=False),
            audio,
            config,
            model.sampling_rate,
            longest,
            step,
            pause,
            behind,
            takes_prompt=is_accepted(model, config.replace(prompt="said before")),
        )

    def stop(self) -> None:
        """Ends the running request before the model's next call; from any thread."""
        self._requests.stop()

    @property
    def stats(self) -> Stats:
        """What the last finished request cost."""
        return self._requests.stats

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer in use."""
        return self._tokenizer

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that can be asked for; () where the model knows one only."""
        return self._requests.model.languages

    @property
    def sampling_rate(self) -> int:
        """Samples per second that the model hears."""
        return self._requests.model.sampling_rate


def is_accepted(model: Transcriber[Any, Any], config: SpeechConfig) -> bool:
    """Whether a model can meet these options."""
    try:
        model.check(config)
    except InputError:
        return False
    return True


show_options(SpeechMethods, SHOWN)
