"""A spoken number, for the demo."""

from __future__ import annotations

from pathlib import Path

SPOKEN_WORDS = "three one four"
SPOKEN_FILE = Path(__file__).with_name("three_one_four.wav")
"""A WAV file in which a synthesised voice says `SPOKEN_WORDS`; tools/tiny_model/make_clips.py makes it."""
