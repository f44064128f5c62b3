"""Training rows: scenes and questions packed into token sequences of one fixed length."""

from __future__ import annotations

import contextlib
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tokenizer import ASSISTANT, BOS, END, USER
from tokenizers import Tokenizer

from executorch_mm.demo import QA, Scene, ask, ask_pair, make_scene, render
from executorch_mm.demo.scenes import COLOURS, SHAPES, SIZES

LENGTH = 97
IMAGE_TOKENS = 16
AUDIO_TOKENS = 25
CONTEXT = 256
VALIDATION_SEED = 900_000_000
"""First seed of the scenes that the tests and evaluations use; training uses seeds from 0."""

ROW_KINDS = {"single": 0.50, "dialogue": 0.15, "pair": 0.22, "free": 0.13}
FREE_FORMS = {
    "user_text_image": 0.20,
    "raw_text_image": 0.22,
    "raw_image_text": 0.20,
    "interleaved": 0.15,
    "pair_text_first": 0.07,
    "pair_raw": 0.06,
    "later_image": 0.10,
}
HARD = (("rel", "rel_yn"), ("pair_more", "pair_which", "pair_single"))
"""The types about one and about two images that are learned last."""

_LABELS = (("Picture 1:", "Picture 2:"), ("Image 1:", "Image 2:"), ("First picture:", "Second picture:"))


def _draw(span: tuple[int, int]) -> np.ndarray:
    return np.stack([np.asarray(render(make_scene(seed))) for seed in range(*span)])


def draw_images(first: int, count: int, cache: Path | None = None) -> np.ndarray:
    """Draws scenes `first` .. `first + count - 1` as uint8 [count,64,64,3], in two processes."""
    if cache is not None and cache.exists():
        return np.load(cache, mmap_mode="r")
    spans = [(s, min(s + 1000, first + count)) for s in range(first, first + count, 1000)]
    with ProcessPoolExecutor(2) as pool:
        images = np.concatenate(list(pool.map(_draw, spans)))
    if cache is not None:
        np.save(cache, images)
    return images


def cell_labels(scene: Scene) -> np.ndarray:
    """Auxiliary labels int64 [64,3]: shape (0: none), colour, size of the object centred in each 8x8 cell."""
    labels = np.zeros((64, 3), np.int64)
    for s in scene.shapes:
        colour, size = list(COLOURS).index(s.colour), SIZES.index(s.size)
        labels[int(s.y // 8) * 8 + int(s.x // 8)] = (SHAPES.index(s.shape) + 1, colour, size)
    return labels


@dataclass
class Row:
    """One packed row. Labels are the token that must follow each position, or -1."""

    ids: list[int] = field(default_factory=list)
    gather: list[int] = field(default_factory=list)
    segment: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    next_position: int = 0

    def room(self) -> int:
        return LENGTH - len(self.ids)

    def text(self, tokens: list[int], segment: int) -> None:
        for token in tokens:
            self._push(token, -1, segment)

    def image(self, index: int, segment: int) -> None:
        for k in range(IMAGE_TOKENS):
            self._push(0, index * IMAGE_TOKENS + k, segment)

    def audio(self, index: int, segment: int) -> None:
        for k in range(AUDIO_TOKENS):
            self._push(0, index * AUDIO_TOKENS + k, segment)

    def reply(self, tokens: list[int], segment: int, answer: int, keep_end: bool = True) -> None:
        """Adds an answer and its end token.

        Without `keep_end` the end is only a label, as in runners that do not feed the last sampled token.
        """
        self.label[-1] = tokens[0]
        self.answer[-1] = answer
        for i, token in enumerate(tokens):
            self._push(token, -1, segment)
            self.label[-1] = tokens[i + 1] if i + 1 < len(tokens) else END
            self.answer[-1] = answer
        if keep_end:
            self._push(END, -1, segment)

    def _push(self, token: int, gather: int, segment: int) -> None:
        self.ids.append(token)
        self.gather.append(gather)
        self.segment.append(segment)
        self.position.append(self.next_position)
        self.label.append(-1)
        self.answer.append(-1)
        self.next_position += 1

    def pad(self) -> None:
        while self.room():
            self.next_position = 0
            self._push(0, -1, -1)


@dataclass
class Batch:
    """Arrays [R,97] for `TinyVLM.forward`, labels, and which answer each label belongs to (-1: none)."""

    seeds: list[int]
    ids: np.ndarray
    gather: np.ndarray
    segment: np.ndarray
    position: np.ndarray
    label: np.ndarray
    answer: np.ndarray
    asked: list[tuple[str, QA]]


class RowMaker:
    """Makes packed rows from scenes; all randomness comes from one generator.

    Args:
        tokenizer_file: tokenizer.json.
        hard: Share of the questions that is drawn from `HARD` only.
        kinds: Kinds of rows and how often they come.
    """

    def __init__(
        self, tokenizer_file: Path, hard: float = 0.0, kinds: dict[str, float] | None = None
    ) -> None:
        self._hard, self._kinds = hard, kinds or ROW_KINDS
        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self._cache: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        found = self._cache.get(text)
        if found is None:
            found = self._tokenizer.encode(text, add_special_tokens=False).ids
            if len(self._cache) < 200_000:
                self._cache[text] = found
        return found

    def batch(self, seeds: list[int], rng: random.Random, kind: str | None = None) -> Batch:
        """Packs one row per scene; rows with two images borrow another scene of the batch.

        Args:
            seeds: Scene seeds; image i of the batch is scene seeds[i].
            rng: Source of all choices.
            kind: A key of `ROW_KINDS` or `FREE_FORMS` to force the kind of row.
        """
        self.scenes = [make_scene(seed) for seed in seeds]
        self.rng = rng
        self.asked: list[tuple[str, QA]] = []
        rows = [self._row(i, kind) for i in range(len(seeds))]
        names = ("ids", "gather", "segment", "position", "label", "answer")
        arrays = [np.array([getattr(row, name) for row in rows], np.int64) for name in names]
        return Batch(seeds, *arrays, self.asked)

    def _row(self, index: int, kind: str | None) -> Row:
        if kind is None:
            kind = self.rng.choices(tuple(self._kinds), weights=tuple(self._kinds.values()))[0]
        other = (index + self.rng.randrange(1, len(self.scenes))) % len(self.scenes)
        row = Row()
        if kind == "single":
            self._prefix(row, [index])
            self._blocks(row, [index], kind)
        elif kind == "dialogue":
            self._prefix(row, [index])
            self._dialogue(row, [index], kind)
        elif kind == "pair":
            self._prefix(row, [index, other])
            if self.rng.random() < 0.7:
                self._blocks(row, [index, other], kind)
            else:
                self._dialogue(row, [index, other], kind)
        else:
            self._free(row, index, other, None if kind == "free" else kind)
        row.pad()
        return row

    def _ask(self, images: list[int]) -> QA:
        scenes = [self.scenes[p] for p in images]
        kind = None
        if self._hard and self.rng.random() < self._hard:
            kind = self.rng.choice(HARD[len(scenes) - 1])
        if len(scenes) == 2:
            return ask_pair(scenes[0], scenes[1], self.rng, kind)
        if kind and len(scenes[0].shapes) > 1:
            # Shapes that look alike leave nothing to refer to.
            with contextlib.suppress(ValueError):
                return ask(scenes[0], self.rng, kind)
        return ask(scenes[0], self.rng)

    def _register(self, form: str, qa: QA) -> int:
        self.asked.append((form, qa))
        return len(self.asked) - 1

    def _space(self) -> str:
        return self.rng.choice((" ", "\n")) if self.rng.random() < 0.1 else ""

    def _prefix(self, row: Row, images: list[int]) -> None:
        row.text(([BOS] if self.rng.random() < 0.1 else []) + [USER], 0)
        for image in images:
            row.image(image, 0)

    def _blocks(self, row: Row, images: list[int], form: str) -> None:
        """Independent questions that all see the images but not one another."""
        start, segment, misses = row.next_position, 0, 0
        while misses < 3:
            qa = self._ask(images)
            question = [*self.encode(self._space() + qa.question), END, ASSISTANT]
            answer = self.encode(qa.answer)
            if len(question) + len(answer) > row.room():
                misses += 1
                continue
            segment += 1
            row.next_position = start
            row.text(question, segment)
            # The end token after the answer is never looked at here: leaving it out makes room.
            row.reply(answer, segment, self._register(form, qa), keep_end=False)

    def _dialogue(self, row: Row, images: list[int], form: str, segment: int = 0, turns: int = 99) -> None:
        """Turns that follow one another; the first user token is already there.

        Half of the dialogues leave gaps between the turns, so that all distances of the context are trained.
        """
        wide = self.rng.random() < 0.5
        keep_end = self.rng.random() < 0.7
        first = True
        while turns > 0:
            qa = self._ask(images)
            head = [] if first else [USER]
            question = [*head, *self.encode(qa.question), END, ASSISTANT]
            answer = self.encode(qa.answer)
            if len(question) + len(answer) + 1 > row.room():
                return
            if wide and not first:
                slack = CONTEXT - row.next_position - row.room()
                row.next_position += self.rng.randrange(max(1, min(slack, 120)))
            row.text(question, segment)
            row.reply(answer, segment, self._register(form, qa), keep_end)
            first, turns = False, turns - 1

    def _free(self, row: Row, index: int, other: int, forced: str | None) -> None:
        """Standalone prompts in the other layouts that people use, each with images of its own."""
        segment, images = 0, [index, other]
        count = len(self.scenes)
        while row.room() >= 34:
            segment += 1
            form = forced or self.rng.choices(tuple(FREE_FORMS), weights=tuple(FREE_FORMS.values()))[0]
            if not self._free_segment(row, form, segment, images) and forced:
                return
            images = [self.rng.randrange(count), self.rng.randrange(count)]

    def _free_segment(self, row: Row, form: str, segment: int, images: list[int]) -> bool:
        row.next_position = 0
        if form == "later_image":
            return self._later_image(row, segment, images)
        one = form in ("user_text_image", "raw_text_image", "raw_image_text")
        qa = self._ask(images[:1] if one else images)
        answer, parts = self.encode(qa.answer), self._layout(form, qa.question, images)
        length = sum(IMAGE_TOKENS if isinstance(p, int) else len(p) for p in parts) + len(answer) + 1
        if length > row.room():
            return False
        for part in parts:
            if isinstance(part, int):
                row.image(part, segment)
            else:
                row.text(part, segment)
        row.reply(answer, segment, self._register(form, qa), self.rng.random() < 0.7)
        if one and self.rng.random() < 0.35:
            self._follow_up(row, form, segment, images)
        return True

    def _layout(self, form: str, text: str, images: list[int]) -> list[list[int] | int]:
        """The prompt as token ids and images (an int each), in order."""
        first, second = images
        question, spaced = self.encode(text), self.encode(text + self._space())
        if form == "user_text_image":
            return [[USER, *spaced], first, [END, ASSISTANT]]
        if form == "raw_text_image":
            return [spaced, first]
        if form == "raw_image_text":
            return [first, self.encode(self._space() + text)]
        if form == "interleaved":
            one, two = (self.encode(label + self._space()) for label in self.rng.choice(_LABELS))
            return [[USER, *one], first, two, second, [*question, END, ASSISTANT]]
        if form == "pair_text_first":
            return [[USER, *spaced], first, second, [END, ASSISTANT]]
        return [first, second, question] if self.rng.random() < 0.5 else [spaced, first, second]

    def _follow_up(self, row: Row, form: str, segment: int, images: list[int]) -> None:
        qa = self._ask(images[:1])
        question, answer = self.encode(qa.question), self.encode(qa.answer)
        if form == "user_text_image":
            question = [USER, *question, END, ASSISTANT]
        if len(question) + len(answer) + 1 <= row.room():
            row.text(question, segment)
            row.reply(answer, segment, self._register(form + "_next", qa))

    def _later_image(self, row: Row, segment: int, images: list[int]) -> bool:
        """A chat with a second image in a later turn; plain questions are about the latest one."""
        if row.room() < 75:
            return False
        row.text([USER], segment)
        row.image(images[0], segment)
        self._dialogue(row, images[:1], "later_image", segment, turns=1)
        if row.room() < IMAGE_TOKENS + 16:
            return True
        row.text([USER], segment)
        row.image(images[1], segment)
        self._dialogue(row, images[1:], "later_image", segment, turns=1 + self.rng.randrange(2))
        return True
