"""`--image` and `--audio`: files that stand in a prompt, in the order of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from executorch_mm.cli.errors import UsageError
from executorch_mm.cli.output import stdin_parts

if TYPE_CHECKING:
    from executorch_mm import MultimodalInput

Kind = Literal["image", "audio"]
MARKS: dict[Kind, str] = {"image": "<image>", "audio": "<audio>"}


class _Append(argparse.Action):
    """Both options add to one list, `media`, so that it keeps their order."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        _option: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), (self.const, values)])


def add_media(parser: argparse._ActionsContainer) -> None:
    """Adds them."""
    for kind, what in (("image", "an image file"), ("audio", "an audio file")):
        parser.add_argument(
            f"--{kind}",
            metavar="FILE",
            dest="media",
            action=_Append,
            const=kind,
            default=[],
            help=f"{what}; - reads it from standard input; may be repeated",
        )


def read_media(arguments: argparse.Namespace) -> list[tuple[Kind, MultimodalInput]]:
    """The files as inputs, in order.

    Raises:
        InputError: A file cannot be read.
    """
    from executorch_mm import make_audio_input, make_image_input
    from executorch_mm.preprocess import load_image

    read: list[tuple[Kind, MultimodalInput]] = []
    for kind, path in arguments.media:
        source = stdin_parts() if path == "-" else path
        part = make_image_input(load_image(source)) if kind == "image" else make_audio_input(source)
        read.append((kind, part))
    return read


def place_media(text: str, media: Sequence[tuple[Kind, MultimodalInput]]) -> list[str | MultimodalInput]:
    """Prompt parts in order: what a mark of its kind stands for is there, the rest before the text.

    Args:
        text: The prompt.
        media: In order of appearance.

    Raises:
        UsageError: There are marks of a kind, but not as many as files of it.
    """
    pieces: list[str | MultimodalInput] = [text]
    before = list(media)
    for kind, mark in MARKS.items():
        files = [part for other, part in media if other == kind]
        num_marks = text.count(mark)
        if files and num_marks:
            if num_marks != len(files):
                raise UsageError(f"generate: {num_marks} {mark} in the prompt, but {len(files)} --{kind}")
            before = [(other, part) for other, part in before if other != kind]
            pieces = _filled(pieces, mark, files)
    return [*(part for _, part in before), *pieces]


def _filled(
    pieces: Sequence[str | MultimodalInput], mark: str, files: Sequence[MultimodalInput]
) -> list[str | MultimodalInput]:
    """The pieces with the files in place of the marks in their texts; no empty text remains."""
    waiting = iter(files)
    filled: list[str | MultimodalInput] = []
    for piece in pieces:
        first, *others = piece.split(mark) if isinstance(piece, str) else [piece]
        filled.append(first)
        for text in others:
            filled += [next(waiting), text]
    return [piece for piece in filled if piece != ""]
