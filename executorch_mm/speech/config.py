"""How an audio clip is transcribed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

from executorch_mm._loading.shown_options import parameters_of, show_options
from executorch_mm.config import GenerationConfig, is_finite, names_unknown_options
from executorch_mm.errors import InputError, shown

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from executorch_mm.speech.vad import VoiceActivityDetector

_MOST_BEAMS = 32
_MOST_PENALTY = 10

Task: TypeAlias = Literal["transcribe", "translate"]


class SpeechOptions(TypedDict, total=False):
    """The fields of `SpeechConfig` as keywords of a call, where they override those of its config."""

    language: str | None
    task: Task
    timestamps: bool
    word_timestamps: bool
    prompt: str | None
    temperature: float | Sequence[float]
    beam_size: int
    patience: float | None
    length_penalty: float
    short_windows: bool
    compression_ratio_threshold: float | None
    logprob_threshold: float | None
    no_speech_threshold: float | None
    condition_on_previous_text: bool
    vad_filter: bool | VoiceActivityDetector
    max_new_tokens: int
    seed: int | None
    timeout: float | None


# What OpenAI's Whisper, its API and faster-whisper call an option.
_OTHER_NAMES = {
    "lang": "language",
    "initial_prompt": "prompt",
    "without_timestamps": "timestamps",
    "return_timestamps": "timestamps",
    "num_beams": "beam_size",
    "vad": "vad_filter",
    "vad_model": "vad_filter",
    "vad_parameters": "vad_filter",
    "log_prob_threshold": "logprob_threshold",
    "max_tokens": "max_new_tokens",
}


@names_unknown_options(_OTHER_NAMES)
@dataclass(frozen=True)
class SpeechConfig:
    """Options of a transcription; the defaults are those of Whisper's reference.

    Attributes:
        language: Of what is said, as a code ("en") or an English name ("English"); None lets the model tell
            from the first window that is not silent.
        task: "translate" writes English, whatever the language.
        timestamps: Ask the model for the times of segments. Audio longer than one window is transcribed
            with them in any case, because the next window begins where the last segment ended.
        word_timestamps: Give segments their `words`, each with its time, and the times of tokens. A Whisper
            then gives times of segments too, and one whose program does not tell what its decoder looks at
            refuses.
        prompt: Text that the model takes for what was said before: names, spellings, style.
        temperature: 0 takes the likeliest token. With several, the next one is tried where the text repeats
            itself or is too unlikely.
        beam_size: Texts that are followed at a time at temperature 0, of which the likeliest is taken: a
            beam search with the rules of transformers' `num_beams`. 1 takes the likeliest token each time.
        patience: The search ends when beam_size * patience texts have ended; 1.0 is transformers'
            `early_stopping=True`. None goes on while one that has not ended is better, as transformers does
            by default.
        length_penalty: The sum of a text's ln p is divided by its number of tokens to this power: above 0
            longer texts gain, below 0 shorter ones.
        short_windows: Let a Whisper hear a few seconds more than there are, instead of 30 s: more than twice
            as fast with short clips. It has learned from 30 s, and a word may come out otherwise.
        compression_ratio_threshold: Text that compresses better than this repeats itself; None never tries
            again for that.
        logprob_threshold: Mean logarithm of the tokens' probabilities below which a text is too unlikely;
            None never tries again for that.
        no_speech_threshold: Probability of no speech above which a window whose text is too unlikely is taken
            for silence; None keeps every text.
        condition_on_previous_text: Show the model the text of the windows before. Without, it is less likely
            to stay in a loop, and more likely to change its style from window to window.
        vad_filter: Show the model only what a voice activity detector takes for speech; times stay those of
            the audio clip. True for `EnergyVad()`, or a detector: an `EnergyVad` with other values, a
            `SileroVad`, or any function of a `Waveform` that returns [(start, end), ...] in seconds.
        max_new_tokens: For each window; -1 for half of the decoder's positions.
        seed: For temperatures above 0: the same seed gives the same text; None draws a fresh one.
        timeout: Seconds after which the transcription ends with what there is; None for no limit.

    Raises:
        InputError: A value is out of its range; the message names the field.
        UnknownOptionError: There is no such option; the message says which may have been meant.
    """

    language: str | None = None
    task: Task = "transcribe"
    timestamps: bool = False
    word_timestamps: bool = False
    prompt: str | None = None
    temperature: float | Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    beam_size: int = 1
    patience: float | None = None
    length_penalty: float = 1.0
    short_windows: bool = False
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    condition_on_previous_text: bool = True
    vad_filter: bool | VoiceActivityDetector = False
    max_new_tokens: int = -1
    seed: int | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        for name in ("language", "prompt"):
            if not isinstance(getattr(self, name), (str, type(None))):
                raise InputError(f"{name}: expected a str or None, got {shown(getattr(self, name))}")
        task: object = self.task
        if not isinstance(task, str) or task not in ("transcribe", "translate"):
            raise InputError(f"task: expected 'transcribe' or 'translate', got {shown(self.task)}")
        for name in ("timestamps", "word_timestamps", "short_windows", "condition_on_previous_text"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name}: expected True or False, got {shown(getattr(self, name))}")
        if not isinstance(self.vad_filter, bool) and not callable(self.vad_filter):
            raise InputError(f"vad_filter: expected True, False or a detector, got {shown(self.vad_filter)}")
        if not self.temperatures or not all(is_finite(value) and value >= 0 for value in self.temperatures):
            raise InputError(
                f"temperature: expected a number of 0 or more, or several, got {shown(self.temperature)}"
            )
        self._check_search()
        GenerationConfig(max_new_tokens=self.max_new_tokens, seed=self.seed, timeout=self.timeout)  # checks
        for name in ("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold"):
            value = getattr(self, name)
            if value is not None and not is_finite(value):
                raise InputError(f"{name}: expected a finite number or None, got {shown(value)}")

    def _check_search(self) -> None:
        size: object = self.beam_size
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _MOST_BEAMS:
            raise InputError(f"beam_size: expected an int of 1 to {_MOST_BEAMS}, got {shown(size)}")
        if self.patience is not None and not (is_finite(self.patience) and self.patience > 0):
            raise InputError(f"patience: expected a number above 0 or None, got {shown(self.patience)}")
        if not is_finite(self.length_penalty) or abs(self.length_penalty) > _MOST_PENALTY:
            raise InputError(
                f"length_penalty: expected a number of -{_MOST_PENALTY} to {_MOST_PENALTY}, got "
                f"{shown(self.length_penalty)}"
            )

    @property
    def temperatures(self) -> tuple[float, ...]:
        """`temperature` as a tuple."""
        value = self.temperature
        return tuple(value) if isinstance(value, Sequence) else (value,)

    def replace(self, **options: Unpack[SpeechOptions]) -> Self:
        """A copy with some fields changed.

        Raises:
            InputError: As in the constructor.
            UnknownOptionError: There is no such option.
        """
        return dataclasses.replace(self, **options) if options else self


SHOWN = {
    "SpeechOptions": parameters_of(
        SpeechOptions, {item.name: item.default for item in dataclasses.fields(SpeechConfig)}
    )
}
"""The options as `show_options` takes them."""
show_options(SpeechConfig, SHOWN)


def with_options(config: SpeechConfig | None, options: SpeechOptions) -> SpeechConfig:
    """A config with some fields changed, by the keywords of a call.

    Raises:
        InputError: It is no config, or an option is wrong.
    """
    if config is None:
        config = SpeechConfig()
    if not isinstance(config, SpeechConfig):
        raise InputError(f"config: expected a SpeechConfig or None, got {shown(config)}")
    return config.replace(**options)
