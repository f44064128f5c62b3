"""Speech to text: audio in, text with times out."""

from executorch_mm.speech.config import SpeechConfig, SpeechOptions
from executorch_mm.speech.live import LiveTranscription
from executorch_mm.speech.model import SpeechModel, SpeechSession
from executorch_mm.speech.runner import SpeechRunner
from executorch_mm.speech.segment import Partial, Segment, Word
from executorch_mm.speech.transcription import Transcription
from executorch_mm.speech.vad import EnergyVad, SileroVad

__all__ = [
    "EnergyVad",
    "LiveTranscription",
    "Partial",
    "Segment",
    "SileroVad",
    "SpeechConfig",
    "SpeechModel",
    "SpeechOptions",
    "SpeechRunner",
    "SpeechSession",
    "Transcription",
    "Word",
]
