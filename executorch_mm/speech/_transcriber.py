"""What runners and sessions ask of each kind of speech model."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from executorch_mm._engine.access import CoreSession
from executorch_mm.speech.config import SpeechConfig
from executorch_mm.speech.segment import Segment, SpeechEvent

if TYPE_CHECKING:
    from executorch_mm.inputs import ArrayLike
    from executorch_mm.preprocess import Waveform
    from executorch_mm.preprocess.sources import Source

    Speech: TypeAlias = ArrayLike | Source | Waveform | Iterator[ArrayLike]

SpeechProgress: TypeAlias = Callable[[float, float], object]
"""Gets (seconds heard, seconds in all)."""


@dataclass
class Hearing:
    """What is known of an audio clip so far.

    Attributes:
        language: Its code.
        segments: Final ones.
        finish_reason: Why it ended; "cancelled" until then.
        prepare_ns: Time for making features.
        token_times_ns: As in `Stats`.
        context: Tokens of what was said, for a model that goes by them.
    """

    language: str | None = None
    segments: list[Segment] = field(default_factory=list)
    finish_reason: str = "cancelled"
    prepare_ns: int = 0
    token_times_ns: list[int] = field(default_factory=list)
    context: list[int] | None = None

    def of_part(self) -> Hearing:
        """For a part of the clip, behind what has been heard of it."""
        return Hearing(language=self.language, context=self.context)

    def add(self, part: Hearing, placed: Callable[[Segment], Segment]) -> None:
        """Adds what was heard in a part.

        Args:
            part: Of that.
            placed: Gives a segment its time in the whole clip.
        """
        self.language, self.context, self.finish_reason = part.language, part.context, part.finish_reason
        self.segments += map(placed, part.segments)
        self.prepare_ns += part.prepare_ns
        self.token_times_ns += part.token_times_ns


SessionT_contra = TypeVar("SessionT_contra", bound=CoreSession, contravariant=True)
ClipT = TypeVar("ClipT")


class Transcriber(Protocol[SessionT_contra, ClipT]):
    """One kind of speech model. It keeps nothing of an audio clip, and no reference to the session."""

    @property
    def sampling_rate(self) -> int:
        """Samples per second that it hears."""
        ...

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that can be asked for."""
        ...

    @property
    def window_seconds(self) -> float:
        """How much of an audio clip it hears at once whatever its length; 0 where it hears what there is."""
        ...

    @property
    def longest_seconds(self) -> float:
        """How much of an audio clip it hears at once at most; 0 where it takes features alone."""
        ...

    def check(self, config: SpeechConfig) -> None:
        """Refuses options that this model cannot meet.

        Raises:
            InputError: The message names the option.
        """
        ...

    def prepare(self, audio: Speech, sampling_rate: int | None) -> ClipT:
        """What the model hears, at its sampling rate; the parameters are those of `SpeechRunner.transcribe`.

        Raises:
            InputError, MissingDependencyError: As there.
        """
        ...

    def seconds(self, clip: ClipT) -> float:
        """How long it lasts."""
        ...

    def transcribe(
        self,
        session: SessionT_contra,
        clip: ClipT,
        config: SpeechConfig,
        hearing: Hearing,
        progress: SpeechProgress,
    ) -> Generator[SpeechEvent, None, None]:
        """Transcribes an audio clip from its beginning.

        Args:
            session: At the beginning of a request.
            clip: From `prepare`.
            config: Checked.
            hearing: Gets what is known, event by event.
            progress: Called before each piece of work and at the end.
        """
        ...
