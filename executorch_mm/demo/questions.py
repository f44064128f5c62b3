"""Questions and answers about one scene (`ask`) or two scenes (`ask_pair`).

Directions follow the dominant axis everywhere: A is left of B when B is further right than it is up or down, and
A is above B when it is further up than it is to the side.
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
        type: The question type, a key of `WEIGHTS` or `PAIR_WEIGHTS`.
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
"""Question types about one picture and how often `ask` picks them."""

PAIR_WEIGHTS: dict[str, float] = {
    "pair_more": 1.6,
    "pair_which": 1.4,
    "pair_both": 1.0,
    "pair_total": 1.0,
    "pair_describe": 1.2,
    "pair_single": 2.0,
}
"""Question types about two pictures and how often `ask_pair` picks them."""

DIRECTIONS = ("left of", "right of", "above", "below")
_DIRECTION_WORDS = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over", "above"),
    "below": ("below", "under", "beneath"),
}
_PICTURE = ("picture", "image", "picture", "image", "scene", "photo")
_DESCRIBE = (
    "describe this {p}:", "describe the {p}", "describe this {p}", "what do you see", "what is in this {p}",
    "what is in the {p}", "what can you see", "describe what you see", "what does the {p} show",
    "what's in the {p}", "what is this", "caption this {p}", "tell me what you see", "describe the {p} in one sentence",
    "what is shown", "what do you see in this {p}", "what is shown in the {p}", "please describe the {p}",
)  # fmt: skip
_IMPERATIVE = ("describe", "caption", "tell", "please", "name", "count")


def _article(phrase: str) -> str:
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


def _typed(rng: random.Random, text: str) -> str:
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


def _describe_text(scene: Scene) -> str:
    shapes = scene.shapes
    if len(shapes) == 1:
        return _article(f"{shapes[0].size} {_plain(shapes[0])}")
    if len(shapes) == 2:
        a, b = shapes
        direction = "left of"
        if not _is("left of", a, b):
            direction = "above"
            if b.y < a.y:
                a, b = b, a
        return f"{_article(f'{a.size} {_plain(a)}')} {direction} {_article(f'{b.size} {_plain(b)}')}"
    return _listing([_article(_plain(shape)) for shape in shapes])


def _describe(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    question = rng.choice(_DESCRIBE).format(p=rng.choice(_PICTURE))
    return question, _describe_text(scene)


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
    answer = _listing([_article(_plain(shape)) for shape in found]) if found else "nothing"
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


def _exists_phrase(scene: Scene, rng: random.Random) -> str:
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


def _holds(scene: Scene, phrase: str) -> int:
    """How many shapes of the scene a phrase such as "red circle", "circle" or "red shape" fits."""
    words = phrase.split()
    return sum(all(word in (shape.colour, shape.shape, "shape") for word in words) for shape in scene.shapes)


def _exists(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    phrase = _exists_phrase(scene, rng)
    form = rng.choice((
        "is there {a}", "is there {a}", "is there {a} in the {p}", "do you see {a}", "can you see {a}",
        "does the {p} have {a}", "is there {a} in this {p}",
    ))  # fmt: skip
    return form.format(a=_article(phrase), p=rng.choice(_PICTURE)), "yes" if _holds(scene, phrase) else "no"


def _plural(shape: str) -> str:
    return "crosses" if shape == "cross" else shape + "s"


def _count(scene: Scene, rng: random.Random, phrase: str, plural: str) -> tuple[str, str]:
    form = rng.choice((
        "how many {x} are there", "how many {x}", "how many {x} are in the {p}", "how many {x} do you see",
        "count the {x}", "how many {x} can you see", "how many {x} are in this {p}", "what is the number of {x}",
    ))  # fmt: skip
    return form.format(x=plural, p=rng.choice(_PICTURE)), NUMBERS[_holds(scene, phrase)]


def _count_shape(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    shape = rng.choice(scene.shapes).shape if rng.random() < 0.7 else rng.choice(SHAPES)
    return _count(scene, rng, shape, _plural(shape))


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


_MAKERS: dict[str, Callable[[Scene, random.Random], tuple[str, str] | None]] = {
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
    if kind is not None and kind not in _MAKERS:
        raise ValueError(f"unknown question type {kind!r}; known: {', '.join(_MAKERS)}")
    for _ in range(60):
        chosen = kind or rng.choices(tuple(WEIGHTS), weights=tuple(WEIGHTS.values()))[0]
        made = _MAKERS[chosen](scene, rng)
        if made is not None:
            return chosen, made[0], made[1]
    raise ValueError(f"no {kind!r} question is possible about scene {scene.seed}")


def ask(scene: Scene, rng: random.Random, kind: str | None = None) -> QA:
    """Makes one question about one picture.

    Args:
        scene: The picture.
        rng: Source of randomness; the same state gives the same question.
        kind: A key of `WEIGHTS` to force the type. By default it is drawn by those weights.

    Returns:
        The question with its answer.

    Raises:
        ValueError: `kind` is unknown, or cannot be asked about this scene (e.g. "rel_yn" about a single shape).
    """
    made, question, answer = _make(scene, rng, kind)
    return QA(made, _typed(rng, question), answer)


_ORDINALS = ("first", "second")


def _pair_more(a: Scene, b: Scene, rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.3:
        phrase, plural = "shape", rng.choice(("shapes", "objects"))
    else:
        shape = rng.choice(rng.choice((a, b)).shapes).shape if rng.random() < 0.85 else rng.choice(SHAPES)
        phrase, plural = shape, _plural(shape)
    in_a, in_b = _holds(a, phrase), _holds(b, phrase)
    form = rng.choice((
        "which {p} has more {x}", "which {p} has more {x}", "which {p} shows more {x}", "where are there more {x}",
        "which of the two {p}s has more {x}", "are there more {x} in the first or the second {p}",
        "which {p} contains more {x}",
    ))  # fmt: skip
    question = form.format(p=rng.choice(("picture", "image")), x=plural)
    if in_a == in_b:
        return question, "both have the same number"
    return question, "the first picture" if in_a > in_b else "the second picture"


def _pair_phrase(a: Scene, b: Scene, rng: random.Random) -> str:
    """A phrase that often fits one picture only, sometimes both or neither."""
    if rng.random() < 0.35:
        shared = {s.shape for s in a.shapes} & {s.shape for s in b.shapes}
        if shared:
            return rng.choice(sorted(shared))
    return _exists_phrase(rng.choice((a, b)), rng)


def _pair_which(a: Scene, b: Scene, rng: random.Random) -> tuple[str, str]:
    phrase = _pair_phrase(a, b, rng)
    form = rng.choice((
        "which {p} has {x}", "which {p} has {x}", "which {p} shows {x}", "in which {p} is there {x}",
        "which {p} contains {x}", "where is there {x}",
    ))  # fmt: skip
    question = form.format(p=rng.choice(("picture", "image")), x=_article(phrase))
    answers = {
        (1, 0): "the first picture",
        (0, 1): "the second picture",
        (1, 1): "both pictures",
        (0, 0): "neither picture",
    }
    return question, answers[(int(_holds(a, phrase) > 0), int(_holds(b, phrase) > 0))]


def _pair_both(a: Scene, b: Scene, rng: random.Random) -> tuple[str, str]:
    shared = sorted({s.shape for s in a.shapes} & {s.shape for s in b.shapes})
    shared += sorted(f"{c} shape" for c in {s.colour for s in a.shapes} & {s.colour for s in b.shapes})
    phrase = rng.choice(shared) if shared and rng.random() < 0.6 else _exists_phrase(rng.choice((a, b)), rng)
    form = rng.choice((
        "is there {x} in both {p}s", "is there {x} in both {p}s", "do both {p}s have {x}", "do both {p}s show {x}",
        "does each {p} have {x}",
    ))  # fmt: skip
    question = form.format(p=rng.choice(("picture", "image")), x=_article(phrase))
    return question, "yes" if _holds(a, phrase) and _holds(b, phrase) else "no"


def _pair_total(a: Scene, b: Scene, rng: random.Random) -> tuple[str, str]:
    phrase, plural = "shape", rng.choice(("shapes", "objects"))
    if rng.random() < 0.5:
        phrase = rng.choice(rng.choice((a, b)).shapes).shape
        plural = _plural(phrase)
    form = rng.choice((
        "how many {x} are there in both {p}s together", "how many {x} are in the two {p}s together",
        "how many {x} are there in total", "how many {x} do the two {p}s have together",
        "how many {x} are there altogether",
    ))  # fmt: skip
    question = form.format(p=rng.choice(("picture", "image")), x=plural)
    return question, NUMBERS[_holds(a, phrase) + _holds(b, phrase)]


def _pair_describe(a: Scene, b: Scene, rng: random.Random) -> tuple[str, str]:
    which = rng.randrange(2)
    form = rng.choice((
        "what is in the {n} {p}", "describe the {n} {p}", "what does the {n} {p} show", "what do you see in the {n} {p}",
        "what's in the {n} {p}", "describe the {n} {p}:",
    ))  # fmt: skip
    return form.format(n=_ORDINALS[which], p=rng.choice(("picture", "image"))), _describe_text((a, b)[which])


def _pair_single(a: Scene, b: Scene, rng: random.Random) -> tuple[str, str]:
    which = rng.randrange(2)
    kinds = [kind for kind in WEIGHTS if kind != "describe"]
    kind = rng.choices(kinds, weights=[WEIGHTS[k] for k in kinds])[0]
    for _ in range(60):
        made = _MAKERS[kind]((a, b)[which], rng)
        # A question that already says "in the picture" cannot take a second place.
        if made is not None and not any(f" {word}" in made[0] for word in set(_PICTURE)):
            break
        kind = rng.choice(kinds)
    else:
        return _pair_describe(a, b, rng)
    place = f"in the {_ORDINALS[which]} {rng.choice(('picture', 'image'))}"
    if rng.random() < 0.25:
        return f"{place}, {made[0]}", made[1]
    return f"{made[0]} {place}", made[1]


_PAIR_MAKERS: dict[str, Callable[[Scene, Scene, random.Random], tuple[str, str]]] = {
    "pair_more": _pair_more,
    "pair_which": _pair_which,
    "pair_both": _pair_both,
    "pair_total": _pair_total,
    "pair_describe": _pair_describe,
    "pair_single": _pair_single,
}


def ask_pair(scene_a: Scene, scene_b: Scene, rng: random.Random, kind: str | None = None) -> QA:
    """Makes one question about two pictures that are shown in this order.

    Args:
        scene_a: The first picture.
        scene_b: The second picture.
        rng: Source of randomness; the same state gives the same question.
        kind: A key of `PAIR_WEIGHTS` to force the type. By default it is drawn by those weights.

    Returns:
        The question with its answer.

    Raises:
        ValueError: `kind` is unknown.
    """
    if kind is not None and kind not in _PAIR_MAKERS:
        raise ValueError(f"unknown question type {kind!r}; known: {', '.join(_PAIR_MAKERS)}")
    chosen = kind or rng.choices(tuple(PAIR_WEIGHTS), weights=tuple(PAIR_WEIGHTS.values()))[0]
    question, answer = _PAIR_MAKERS[chosen](scene_a, scene_b, rng)
    return QA(chosen, _typed(rng, question), answer)
