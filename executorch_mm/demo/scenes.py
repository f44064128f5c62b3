"""Scenes of one to three coloured shapes, drawn from a seed.

A scene is a pure function of its seed: the layout comes from `random.Random`, the pixel noise from NumPy's
frozen `RandomState`. Layouts are chosen so that "left of" and "above" are never ambiguous (see `make_scene`).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SIZE = 64
"""Width and height of a rendered scene, in pixels."""

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (245, 225, 50),
    "green": (40, 165, 60),
    "cyan": (40, 205, 220),
    "blue": (40, 70, 225),
    "purple": (140, 50, 190),
    "pink": (250, 135, 195),
}
"""Colour name to mean RGB; every drawn shape deviates a little from it."""

SIZES = ("small", "large")
BACKGROUNDS = ("light", "dark", "noisy")

# What people get from a drawing program when they ask for these names.
_PURE: dict[str, tuple[int, int, int]] = {
    "red": (255, 0, 0),
    "orange": (255, 150, 0),
    "yellow": (255, 255, 0),
    "green": (0, 150, 0),
    "cyan": (0, 255, 255),
    "blue": (0, 0, 255),
    "purple": (128, 0, 128),
    "pink": (255, 105, 180),
}
_SUPERSAMPLE = 3
_RADIUS = {"small": (5.0, 6.5), "large": (10.0, 12.0)}
_MIN_GAP = 3.0
_MIN_OFFSET = 5.0
_COPY_ATTRIBUTE = 0.25
_PURE_COLOUR = 0.2


@dataclass(frozen=True)
class Shape:
    """One shape of a scene.

    Attributes:
        shape: One of `SHAPES`.
        colour: One of the keys of `COLOURS`.
        size: "small" or "large".
        x: Centre, in pixels from the left edge.
        y: Centre, in pixels from the top edge.
        radius: Radius in pixels.
    """

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """An image before it is drawn.

    Attributes:
        seed: The seed it was made from.
        shapes: One to three shapes, ordered from left to right.
        background: One of `BACKGROUNDS`.
    """

    seed: int
    shapes: tuple[Shape, ...]
    background: str


def _fits(x: float, y: float, radius: float, others: list[Shape]) -> bool:
    for other in others:
        dx, dy = abs(x - other.x), abs(y - other.y)
        if dx < _MIN_OFFSET or abs(dx - dy) < _MIN_OFFSET:
            return False
        if math.hypot(dx, dy) < radius + other.radius + _MIN_GAP:
            return False
    return True


def _place(rng: random.Random, count: int) -> list[Shape] | None:
    placed: list[Shape] = []
    for _ in range(count):
        shape, colour = rng.choice(SHAPES), rng.choice(tuple(COLOURS))
        size = rng.choice(SIZES)
        # Shapes that share an attribute make questions that cannot be answered from one attribute alone.
        if placed and rng.random() < _COPY_ATTRIBUTE:
            shape = placed[-1].shape
        if placed and rng.random() < _COPY_ATTRIBUTE:
            colour = placed[-1].colour
        radius = rng.uniform(*_RADIUS[size])
        margin = radius + 1.0
        for _attempt in range(30):
            x = rng.uniform(margin, IMAGE_SIZE - margin)
            y = rng.uniform(margin, IMAGE_SIZE - margin)
            if _fits(x, y, radius, placed):
                placed.append(Shape(shape, colour, size, x, y, radius))
                break
        else:
            return None
    return placed


def make_scene(seed: int) -> Scene:
    """Makes the scene that belongs to a seed.

    Any two shapes are at least 3 px apart, at least 5 px apart horizontally, and their horizontal and
    vertical distances differ by at least 5 px, so that left to right order and the dominant direction are
    unambiguous.

    Args:
        seed: 0 to 2**32 - 1. Seeds below 900,000,000 belong to training, the others to evaluation.

    Returns:
        The scene; the same one for the same seed on every machine.

    Raises:
        ValueError: The seed is out of range.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"scene seed must be in 0..2**32-1, got {seed}")
    rng = random.Random(seed)
    background = rng.choice(BACKGROUNDS)
    count = rng.choices((1, 2, 3), weights=(0.2, 0.35, 0.45))[0]
    placed = _place(rng, count)
    while placed is None:
        placed = _place(rng, count)
    return Scene(seed, tuple(sorted(placed, key=lambda shape: shape.x)), background)


def _outline(shape: Shape, angle: float) -> list[tuple[float, float]]:
    """Corner points in scene pixels (y down) of any shape but the circle."""
    if shape.shape == "square":
        polar = [(1.15, math.pi / 4 + k * math.pi / 2) for k in range(4)]
    elif shape.shape == "triangle":
        polar = [(1.15, -math.pi / 2 + k * 2 * math.pi / 3) for k in range(3)]
    elif shape.shape == "star":
        polar = [(1.15 if k % 2 == 0 else 0.48, -math.pi / 2 + k * math.pi / 5) for k in range(10)]
    else:
        arm = 0.34
        corners = [(arm, 1.0), (arm, arm), (1.0, arm), (1.0, -arm), (arm, -arm), (arm, -1.0)]
        corners += [(-x, -y) for x, y in corners]
        polar = [(math.hypot(x, y), math.atan2(y, x)) for x, y in corners]
    return [
        (
            shape.x + shape.radius * length * math.cos(direction + angle),
            shape.y + shape.radius * length * math.sin(direction + angle),
        )
        for length, direction in polar
    ]


def render(scene: Scene) -> Image.Image:
    """Draws a scene.

    Args:
        scene: A scene from `make_scene`, or one put together by hand.

    Returns:
        A 64x64 RGB `PIL.Image.Image`; the same pixels for the same scene (up to Pillow's rasteriser).
    """
    from PIL import Image, ImageDraw

    rng = random.Random(scene.seed ^ 0x5EED)
    level = rng.uniform(8, 60) if scene.background == "dark" else rng.uniform(195, 252)
    if scene.background == "noisy":
        level = rng.choice((rng.uniform(8, 60), rng.uniform(195, 252)))
    noise = rng.uniform(14, 26) if scene.background == "noisy" else rng.uniform(0, 5)
    if scene.background != "noisy" and rng.random() < 0.15:
        level, noise = (0.0 if scene.background == "dark" else 255.0), 0.0
    ground = tuple(round(min(255.0, max(0.0, level + rng.uniform(-8, 8)))) for _ in range(3))
    side = IMAGE_SIZE * _SUPERSAMPLE
    canvas = Image.new("RGB", (side, side), ground)
    draw = ImageDraw.Draw(canvas)
    for shape in scene.shapes:
        base = _PURE[shape.colour] if rng.random() < _PURE_COLOUR else COLOURS[shape.colour]
        fill = tuple(round(min(255.0, max(0.0, c + rng.uniform(-14, 14)))) for c in base)
        angle = rng.uniform(-0.2, 0.2)
        if shape.shape == "circle":
            box = [v * _SUPERSAMPLE for v in (shape.x - shape.radius, shape.y - shape.radius)]
            box += [v * _SUPERSAMPLE for v in (shape.x + shape.radius, shape.y + shape.radius)]
            draw.ellipse(box, fill=fill)
        else:
            points = [(x * _SUPERSAMPLE, y * _SUPERSAMPLE) for x, y in _outline(shape, angle)]
            draw.polygon(points, fill=fill)
    pixels = np.asarray(canvas.reduce(_SUPERSAMPLE), dtype=np.float32)
    if noise > 0:
        pixels = pixels + np.random.RandomState(scene.seed).normal(0.0, noise, pixels.shape).astype(
            np.float32
        )
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
