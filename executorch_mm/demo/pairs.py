"""Questions and answers about two scenes that are shown in one prompt (`ask_pair`)."""

from __future__ import annotations

import random
from collections.abc import Callable

from executorch_mm.demo import questions
from executorch_mm.demo.questions import (
    IMAGE_WORDS,
    MAKERS,
    NUMBERS,
    QA,
    article,
    count_matching,
    describe_text,
    exists_phrase,
    plural_of,
    typed,
)
from executorch_mm.demo.scenes import SHAPES, Scene

WEIGHTS: dict[str, float] = {
    "pair_more": 1.6,
    "pair_which": 1.4,
    "pair_both": 1.0,
    "pair_total": 1.0,
    "pair_describe": 1.2,
    "pair_single": 2.0,
}
"""Question types about two images and how often `ask_pair` picks them."""

_ORDINALS = ("first", "second")


def _pair_more(a: Scene, b: Scene, rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.3:
        phrase, plural = "shape", rng.choice(("shapes", "objects"))
    else:
        shape = rng.choice(rng.choice((a, b)).shapes).shape if rng.random() < 0.85 else rng.choice(SHAPES)
        phrase, plural = shape, plural_of(shape)
    in_a, in_b = count_matching(a, phrase), count_matching(b, phrase)
    form = rng.choice((
        "which {p} has more {x}", "which {p} has more {x}", "which {p} shows more {x}",
        "where are there more {x}",
        "which of the two {p}s has more {x}", "are there more {x} in the first or the second {p}",
        "which {p} contains more {x}",
    ))  # fmt: skip
    question = form.format(p=rng.choice(("picture", "image")), x=plural)
    if in_a == in_b:
        return question, "both have the same number"
    return question, "the first picture" if in_a > in_b else "the second picture"


def _pair_phrase(a: Scene, b: Scene, rng: random.Random) -> str:
    """A phrase that often fits one image only, sometimes both or neither."""
    if rng.random() < 0.35:
        shared = {s.shape for s in a.shapes} & {s.shape for s in b.shapes}
        if shared:
            return rng.choice(sorted(shared))
    return exists_phrase(rng.choice((a, b)), rng)


def _pair_which(a: Scene, b: Scene, rng: random.Random) -> tuple[str, str]:
    phrase = _pair_phrase(a, b, rng)
    form = rng.choice((
        "which {p} has {x}", "which {p} has {x}", "which {p} shows {x}", "in which {p} is there {x}",
        "which {p} contains {x}", "where is there {x}",
    ))  # fmt: skip
    question = form.format(p=rng.choice(("picture", "image")), x=article(phrase))
    answers = {
        (1, 0): "the first picture",
        (0, 1): "the second picture",
        (1, 1): "both pictures",
        (0, 0): "neither picture",
    }
    return question, answers[(int(count_matching(a, phrase) > 0), int(count_matching(b, phrase) > 0))]


def _pair_both(a: Scene, b: Scene, rng: random.Random) -> tuple[str, str]:
    shared = sorted({s.shape for s in a.shapes} & {s.shape for s in b.shapes})
    shared += sorted(f"{c} shape" for c in {s.colour for s in a.shapes} & {s.colour for s in b.shapes})
    phrase = rng.choice(shared) if shared and rng.random() < 0.6 else exists_phrase(rng.choice((a, b)), rng)
    form = rng.choice((
        "is there {x} in both {p}s", "is there {x} in both {p}s", "do both {p}s have {x}",
        "do both {p}s show {x}",
        "does each {p} have {x}",
    ))  # fmt: skip
    question = form.format(p=rng.choice(("picture", "image")), x=article(phrase))
    return question, "yes" if count_matching(a, phrase) and count_matching(b, phrase) else "no"


def _pair_total(a: Scene, b: Scene, rng: random.Random) -> tuple[str, str]:
    phrase, plural = "shape", rng.choice(("shapes", "objects"))
    if rng.random() < 0.5:
        phrase = rng.choice(rng.choice((a, b)).shapes).shape
        plural = plural_of(phrase)
    form = rng.choice((
        "how many {x} are there in both {p}s together", "how many {x} are in the two {p}s together",
        "how many {x} are there in total", "how many {x} do the two {p}s have together",
        "how many {x} are there altogether",
    ))  # fmt: skip
    question = form.format(p=rng.choice(("picture", "image")), x=plural)
    return question, NUMBERS[count_matching(a, phrase) + count_matching(b, phrase)]


def _pair_describe(a: Scene, b: Scene, rng: random.Random) -> tuple[str, str]:
    which = rng.randrange(2)
    form = rng.choice((
        "what is in the {n} {p}", "describe the {n} {p}", "what does the {n} {p} show",
        "what do you see in the {n} {p}",
        "what's in the {n} {p}", "describe the {n} {p}:",
    ))  # fmt: skip
    return form.format(n=_ORDINALS[which], p=rng.choice(("picture", "image"))), describe_text((a, b)[which])


def _pair_single(a: Scene, b: Scene, rng: random.Random) -> tuple[str, str]:
    which = rng.randrange(2)
    kinds = [kind for kind in questions.WEIGHTS if kind != "describe"]
    kind = rng.choices(kinds, weights=[questions.WEIGHTS[k] for k in kinds])[0]
    for _ in range(60):
        made = MAKERS[kind]((a, b)[which], rng)
        # A question that already says "in the picture" cannot take a second place.
        if made is not None and not any(f" {word}" in made[0] for word in set(IMAGE_WORDS)):
            break
        kind = rng.choice(kinds)
    else:
        return _pair_describe(a, b, rng)
    place = f"in the {_ORDINALS[which]} {rng.choice(('picture', 'image'))}"
    if rng.random() < 0.25:
        return f"{place}, {made[0]}", made[1]
    return f"{made[0]} {place}", made[1]


_MAKERS: dict[str, Callable[[Scene, Scene, random.Random], tuple[str, str]]] = {
    "pair_more": _pair_more,
    "pair_which": _pair_which,
    "pair_both": _pair_both,
    "pair_total": _pair_total,
    "pair_describe": _pair_describe,
    "pair_single": _pair_single,
}


def ask_pair(scene_a: Scene, scene_b: Scene, rng: random.Random, kind: str | None = None) -> QA:
    """Makes one question about two images that are shown in this order.

    Args:
        scene_a: The first image.
        scene_b: The second image.
        rng: Source of randomness; the same state gives the same question.
        kind: A key of `WEIGHTS` to force the type. By default it is drawn by those weights.

    Returns:
        The question with its answer.

    Raises:
        ValueError: `kind` is unknown.
    """
    if kind is not None and kind not in _MAKERS:
        raise ValueError(f"unknown question type {kind!r}; known: {', '.join(_MAKERS)}")
    chosen = kind or rng.choices(tuple(WEIGHTS), weights=tuple(WEIGHTS.values()))[0]
    question, answer = _MAKERS[chosen](scene_a, scene_b, rng)
    return QA(chosen, typed(rng, question), answer)
