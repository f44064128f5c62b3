"""Rendered scenes of coloured shapes and questions about them: what the model in the wheel was trained on."""

from __future__ import annotations

from executorch_mm.demo.pairs import ask_pair
from executorch_mm.demo.questions import QA, ask
from executorch_mm.demo.scenes import Scene, Shape, make_scene, render

__all__ = ["QA", "Scene", "Shape", "ask", "ask_pair", "make_scene", "render"]
