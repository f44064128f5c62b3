"""Speech to text: sounds in, text with times out."""

from executorch_mm.speech.config import SpeechConfig, SpeechOptions
from executorch_mm.speech.result import Partial, Segment, Transcription
from executorch_mm.speech.runner import SpeechRunner

__all__ = ["Partial", "Segment", "SpeechConfig", "SpeechOptions", "SpeechRunner", "Transcription"]
