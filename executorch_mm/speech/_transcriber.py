"""What runners and sessions ask of each kind of speech model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from executorch_mm import _core
from executorch_mm._engine.access import CoreSession
from executorch_mm.speech.config import SpeechConfig
from executorch_mm.speech.segment import Segment, SpeechEvent
from executorch_mm.stats import Stats

if TYPE_CHECKING:
    from executorch_mm.inputs import ArrayLike
    from executorch_mm.preprocess import Waveform
    from executorch_mm.preprocess.sources import Source

    Speech: TypeAlias = ArrayLike | Source | Waveform | Iterator[ArrayLike]

SpeechProgress: TypeAlias = Callable[[float, float], object]
"""Gets (seconds heard, seconds in all)."""


@dataclass
class SearchCosts:
    """What a search has cost beside what the request's session counts; fields as in `RequestTimings`."""

    num_generated_tokens: int = 0
    num_forced_tokens: int = 0
    num_decode_steps: int = 0
    decode_ns: int = 0
    sample_ns: int = 0

    def add(self, timings: _core.RequestTimings | SearchCosts) -> None:
        """Adds the model's calls that another session has made."""
        if isinstance(timings, SearchCosts):
            self.num_generated_tokens += timings.num_generated_tokens
            self.num_forced_tokens += timings.num_forced_tokens
        self.num_decode_steps += timings.num_decode_steps
        self.decode_ns += timings.decode_ns
        self.sample_ns += timings.sample_ns

    def added_to(self, stats: Stats) -> Stats:
        """The costs of all."""
        return dataclasses.replace(
            stats,
            **{
                field.name: getattr(stats, field.name) + getattr(self, field.name)
                for field in dataclasses.fields(self)
            },
        )


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
        costs: Of other sessions that took part.
    """

    language: str | None = None
    segments: list[Segment] = field(default_factory=list)
    finish_reason: str = "cancelled"
    prepare_ns: int = 0
    token_times_ns: list[int] = field(default_factory=list)
    context: list[int] | None = None
    costs: SearchCosts = field(default_factory=SearchCosts)

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
        self.costs.add(part.costs)


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
