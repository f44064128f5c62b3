"""Questions and answers about one scene (`ask`).

Directions follow the dominant axis everywhere: A is left of B when B is further right than it is up or down,
and A is above B when it is further up than it is to the side.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from executorch_mm.demo.scenes import COLOURS, SHAPES, Scene, Shape

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class QA:
    """One question with its only right answer.

    Attributes:
        type: The question type, a key of `WEIGHTS` or of `pairs.WEIGHTS`.
        question: As a user might type it.
        answer: Lower case, without a final full stop.
    """

    type: str
    question: str
    answer: str


WEIGHTS: dict[str, float] = {
    "describe": 2.5,
    "rel": 2.0,
    "rel_yn": 2.0,
    "exists": 1.2,
    "count_shape": 1.0,
    "color_of": 1.0,
    "shape_of": 1.0,
    "count_color": 0.8,
    "size_of": 0.8,
    "count_all": 0.6,
}
"""Question types about one image and how often `ask` picks them."""

DIRECTIONS = ("left of", "right of", "above", "below")
_DIRECTION_WORDS = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over", "above"),
    "below": ("below", "under", "beneath"),
}
IMAGE_WORDS = ("picture", "image", "picture", "image", "scene", "photo")
_DESCRIBE = (
    "describe this {p}:", "describe the {p}", "describe this {p}", "what do you see", "what is in this {p}",
    "what is in the {p}", "what can you see", "describe what you see", "what does the {p} show",
    "what's in the {p}", "what is this", "caption this {p}", "tell me what you see",
    "describe the {p} in one sentence",
    "what is shown", "what do you see in this {p}", "what is shown in the {p}", "please describe the {p}",
)  # fmt: skip
_IMPERATIVE = ("describe", "caption", "tell", "please", "name", "count")


def article(phrase: str) -> str:
    """The phrase with "a" or "an" before it."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _plain(shape: Shape) -> str:
    return f"{shape.colour} {shape.shape}"


def _listing(phrases: list[str]) -> str:
    if len(phrases) == 1:
        return phrases[0]
    return ", ".join(phrases[:-1]) + " and " + phrases[-1]


def _is(direction: str, a: Shape, b: Shape) -> bool:
    dx, dy = a.x - b.x, a.y - b.y
    if direction == "left of":
        return dx < 0 and abs(dx) > abs(dy)
    if direction == "right of":
        return dx > 0 and abs(dx) > abs(dy)
    if direction == "above":
        return dy < 0 and abs(dy) > abs(dx)
    return dy > 0 and abs(dy) > abs(dx)


def _references(shape: Shape, scene: Scene) -> list[str]:
    """Ways to name one shape that fit no other shape of the scene."""
    found = []
    others = [other for other in scene.shapes if other is not shape]
    if all((o.shape, o.colour) != (shape.shape, shape.colour) for o in others):
        found += [f"the {_plain(shape)}"] * 2
    if all(o.shape != shape.shape for o in others):
        found += [f"the {shape.shape}"] * 2
    if all(o.colour != shape.colour for o in others):
        found.append(f"the {shape.colour} " + ("shape", "one", "object")[_word_index(shape)])
    return found


def _word_index(shape: Shape) -> int:
    """A choice among three that depends on the shape's place only (the same word each time)."""
    return int(shape.x * 7 + shape.y * 3) % 3


def typed(rng: random.Random, text: str) -> str:
    """Capitals, end marks and spelling as different people type them."""
    if "color" in text and rng.random() < 0.5:
        text = text.replace("color", "colour")
    if rng.random() < 0.6:
        text = text[0].upper() + text[1:]
    if not text.endswith(":") and rng.random() < 0.6:
        if text.lower().startswith(_IMPERATIVE):
            text += rng.choice(".::")
        else:
            text += "?"
    return text


def describe_text(scene: Scene) -> str:
    """The right answer to "Describe this picture"."""
    shapes = scene.shapes
    if len(shapes) == 1:
        return article(f"{shapes[0].size} {_plain(shapes[0])}")
    if len(shapes) == 2:
        a, b = shapes
        direction = "left of"
        if not _is("left of", a, b):
            direction = "above"
            if b.y < a.y:
                a, b = b, a
        return f"{article(f'{a.size} {_plain(a)}')} {direction} {article(f'{b.size} {_plain(b)}')}"
    return _listing([article(_plain(shape)) for shape in shapes])


def _describe(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    question = rng.choice(_DESCRIBE).format(p=rng.choice(IMAGE_WORDS))
    return question, describe_text(scene)


def _pick_reference(scene: Scene, rng: random.Random) -> tuple[Shape, str] | None:
    shape = rng.choice(scene.shapes)
    references = _references(shape, scene)
    return (shape, rng.choice(references)) if references else None


def _absent_shape(scene: Scene, rng: random.Random) -> str | None:
    """Now and then, the name of a shape that the scene does not have."""
    if rng.random() >= 0.08:
        return None
    present = {shape.shape for shape in scene.shapes}
    return rng.choice([name for name in SHAPES if name not in present])


def _rel(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    picked = _pick_reference(scene, rng)
    if picked is None:
        return None
    anchor, reference = picked
    direction = rng.choice(DIRECTIONS)
    found = [shape for shape in scene.shapes if shape is not anchor and _is(direction, shape, anchor)]
    if not found and rng.random() < 0.5:
        return None
    answer = _listing([article(_plain(shape)) for shape in found]) if found else "nothing"
    words = rng.choice(_DIRECTION_WORDS[direction])
    form = rng.choice(
        (
            "what is {d} {r}",
            "what is {d} {r}",
            "what's {d} {r}",
            "which shape is {d} {r}",
            "what do you see {d} {r}",
        )
    )
    return form.format(d=words, r=reference), answer


def _rel_yn(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    if len(scene.shapes) < 2:
        return None
    a, b = rng.sample(scene.shapes, 2)
    names_a, names_b = _references(a, scene), _references(b, scene)
    if not names_a or not names_b:
        return None
    true_direction = next(d for d in DIRECTIONS if _is(d, a, b))
    truth = rng.random() < 0.5
    direction = true_direction
    if not truth:
        opposite = DIRECTIONS[DIRECTIONS.index(true_direction) ^ 1]
        sideways = [d for d in DIRECTIONS if d not in (true_direction, opposite)]
        direction = opposite if rng.random() < 0.5 else rng.choice(sideways)
    words = rng.choice(_DIRECTION_WORDS[direction])
    return f"is {rng.choice(names_a)} {words} {rng.choice(names_b)}", "yes" if truth else "no"


def exists_phrase(scene: Scene, rng: random.Random) -> str:
    """Something that may or may not be in the scene, phrased without its article."""
    chosen, draw = rng.choice(scene.shapes), rng.random()
    colour, shape = chosen.colour, chosen.shape
    if draw >= 0.8:
        if rng.random() < 0.5:
            colour = rng.choice(tuple(COLOURS))
        else:
            shape = rng.choice(SHAPES)
    elif draw >= 0.5:
        shape = rng.choice(scene.shapes).shape if len(scene.shapes) > 1 else rng.choice(SHAPES)
    form = rng.random()
    if form < 0.7:
        return f"{colour} {shape}"
    if form < 0.88:
        return shape if rng.random() < 0.5 else rng.choice(SHAPES)
    return f"{colour if rng.random() < 0.5 else rng.choice(tuple(COLOURS))} shape"


def count_matching(scene: Scene, phrase: str) -> int:
    """How many shapes of the scene a phrase such as "red circle", "circle" or "red shape" fits."""
    words = phrase.split()
    return sum(all(word in (shape.colour, shape.shape, "shape") for word in words) for shape in scene.shapes)


def _exists(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    phrase = exists_phrase(scene, rng)
    form = rng.choice((
        "is there {a}", "is there {a}", "is there {a} in the {p}", "do you see {a}", "can you see {a}",
        "does the {p} have {a}", "is there {a} in this {p}",
    ))  # fmt: skip
    return form.format(a=article(phrase), p=rng.choice(IMAGE_WORDS)), "yes" if count_matching(
        scene, phrase
    ) else "no"


def plural_of(shape: str) -> str:
    """The plural of one of `SHAPES`."""
    return "crosses" if shape == "cross" else shape + "s"


def _count(scene: Scene, rng: random.Random, phrase: str, plural: str) -> tuple[str, str]:
    form = rng.choice((
        "how many {x} are there", "how many {x}", "how many {x} are in the {p}", "how many {x} do you see",
        "count the {x}", "how many {x} can you see", "how many {x} are in this {p}",
        "what is the number of {x}",
    ))  # fmt: skip
    return form.format(x=plural, p=rng.choice(IMAGE_WORDS)), NUMBERS[count_matching(scene, phrase)]


def _count_shape(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    shape = rng.choice(scene.shapes).shape if rng.random() < 0.7 else rng.choice(SHAPES)
    return _count(scene, rng, shape, plural_of(shape))


def _count_color(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    colour = rng.choice(scene.shapes).colour if rng.random() < 0.7 else rng.choice(tuple(COLOURS))
    return _count(scene, rng, f"{colour} shape", f"{colour} {rng.choice(('shapes', 'objects', 'things'))}")


def _count_all(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    return _count(scene, rng, "shape", rng.choice(("shapes", "objects", "things", "shapes")))


def _color_of(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    form = rng.choice(
        (
            "what color is {r}",
            "what color is {r}",
            "what is the color of {r}",
            "which color is {r}",
            "{r} is what color",
        )
    )
    absent = _absent_shape(scene, rng)
    if absent:
        return form.format(r=f"the {absent}"), f"there is no {absent}"
    unique = [s for s in scene.shapes if all(o is s or o.shape != s.shape for o in scene.shapes)]
    if not unique:
        return None
    shape = rng.choice(unique)
    return form.format(r=f"the {shape.shape}"), shape.colour


def _shape_of(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    unique = [s for s in scene.shapes if all(o is s or o.colour != s.colour for o in scene.shapes)]
    if not unique:
        return None
    shape = rng.choice(unique)
    form = rng.choice((
        "what shape is the {c} {o}", "what is the {c} {o}", "what shape is {c}", "which shape is {c}",
        "what is the shape of the {c} {o}",
    ))  # fmt: skip
    return form.format(c=shape.colour, o=rng.choice(("object", "one", "thing", "shape"))), shape.shape


def _size_of(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    absent = _absent_shape(scene, rng)
    form = rng.choice(
        (
            "is {r} small or large",
            "how big is {r}",
            "what size is {r}",
            "what is the size of {r}",
            "is {r} large or small",
        )
    )
    if absent:
        return form.format(r=f"the {absent}"), f"there is no {absent}"
    picked = _pick_reference(scene, rng)
    return (form.format(r=picked[1]), picked[0].size) if picked else None


MAKERS: dict[str, Callable[[Scene, random.Random], tuple[str, str] | None]] = {
    "describe": _describe,
    "rel": _rel,
    "rel_yn": _rel_yn,
    "exists": _exists,
    "count_shape": _count_shape,
    "color_of": _color_of,
    "shape_of": _shape_of,
    "count_color": _count_color,
    "size_of": _size_of,
    "count_all": _count_all,
}


def _make(scene: Scene, rng: random.Random, kind: str | None) -> tuple[str, str, str]:
    if kind is not None and kind not in MAKERS:
        raise ValueError(f"unknown question type {kind!r}; known: {', '.join(MAKERS)}")
    for _ in range(60):
        chosen = kind or rng.choices(tuple(WEIGHTS), weights=tuple(WEIGHTS.values()))[0]
        made = MAKERS[chosen](scene, rng)
        if made is not None:
            return chosen, made[0], made[1]
    raise ValueError(f"no {kind!r} question is possible about scene {scene.seed}")


def ask(scene: Scene, rng: random.Random, kind: str | None = None) -> QA:
    """Makes one question about one image.

    Args:
        scene: The image.
        rng: Source of randomness; the same state gives the same question.
        kind: A key of `WEIGHTS` to force the type. By default it is drawn by those weights.

    Returns:
        The question with its answer.

    Raises:
        ValueError: `kind` is unknown, or cannot be asked about this scene (e.g. "rel_yn" about
            a single shape).
    """
    made, question, answer = _make(scene, rng, kind)
    return QA(made, typed(rng, question), answer)
