"""Rendered scenes of coloured shapes, questions about them, and a voice, for the model in the wheel."""

from __future__ import annotations

from executorch_mm.demo.audio import SPOKEN_FILE, SPOKEN_WORDS
from executorch_mm.demo.pairs import ask_pair
from executorch_mm.demo.questions import QA, ask
from executorch_mm.demo.scenes import Scene, Shape, make_scene, render

__all__ = ["QA", "SPOKEN_FILE", "SPOKEN_WORDS", "Scene", "Shape", "ask", "ask_pair", "make_scene", "render"]
