"""Speech to text: audio in, text with times out."""

from executorch_mm.speech.config import SpeechConfig, SpeechOptions
from executorch_mm.speech.runner import SpeechRunner
from executorch_mm.speech.segment import Partial, Segment
from executorch_mm.speech.transcription import Transcription

__all__ = ["Partial", "Segment", "SpeechConfig", "SpeechOptions", "SpeechRunner", "Transcription"]
