"""What a chat prompt has in common with the context, so that only the rest is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from executorch_mm import _core
from executorch_mm.arrays import PairedArrays, is_pil_image
from executorch_mm.arrays import numpy as np
from executorch_mm.errors import ExecutorchMMError
from executorch_mm.inputs import MultimodalInput, Prompt, as_parts, make_token_input

if TYPE_CHECKING:
    import numpy.typing as npt

    from executorch_mm._engine.reply import ReplyReader, ThinkingBudget

_MEDIA_POSITION = -1  # in a session's history
_Ids: TypeAlias = "npt.NDArray[np.int64]"
_Segment: TypeAlias = "_Ids | list[MultimodalInput]"


class ChatPrompt(NamedTuple):
    """A whole conversation for the runner, which may have read some of it already.

    Attributes:
        parts: Token ids, and images and audio, in order.
        make_reader: Gives what tells one answer apart; None where it is text alone.
        grammar: In llguidance's dialect of Lark, what the answer keeps to because of its tools.
        budget: How long the model may think.
    """

    parts: tuple[MultimodalInput, ...]
    make_reader: Callable[[], ReplyReader] | None = None
    grammar: str | None = None
    budget: ThinkingBudget | None = None


class PrefixCache:
    """Remembers which images and audio clips are in a session's context.

    The history tells tokens, but of an image only how many positions it takes. Images that follow each
    other are one run of such positions, and are only reused together.
    """

    def __init__(self) -> None:
        self._media: list[bytes] = []  # one digest for each run of media, from the start of the context
        self.num_known = 0

    @property
    def media(self) -> tuple[bytes, ...]:
        """A digest for each run of images and audio from the start of the context, as far as known."""
        return tuple(self._media)

    def remember(self, media: Sequence[bytes]) -> None:
        """The context is another now.

        Args:
            media: What `media` was when that one was saved.
        """
        self._media = [*media]

    def forget(self) -> None:
        """Something else may have come into the context."""
        self._media = []

    def cut(self, history: Sequence[int], position: int) -> None:
        """The context ends earlier now; a run of images that ends in its middle is not known any more.

        Args:
            history: What it was before.
            position: Where it ends.
        """
        is_media = np.asarray(history, dtype=np.int64) == _MEDIA_POSITION
        begins = np.diff(is_media, prepend=False) & is_media
        is_cut = 0 < position < len(is_media) and bool(is_media[position - 1 : position + 1].all())
        del self._media[int(begins[:position].sum()) - is_cut :]

    def to_read(
        self, inputs: Prompt | ChatPrompt, session: _core.Session, least: int = 1
    ) -> list[MultimodalInput]:
        """The parts of a prompt that are to be read; the session is taken back to where they go on.

        Args:
            inputs: A prompt that continues the context, or a `ChatPrompt`, which stands for the whole of it.
            session: Not reading anything.
            least: Tokens at the end of a `ChatPrompt` that are read again, where the session can be taken
                back to anywhere; its last text, if that is shorter. If they are more than one, none are
                where the session stands right behind the prompt.

        Raises:
            InputError: A prompt has parts that are no inputs.
        """
        self.num_known = 0
        if isinstance(inputs, ChatPrompt):
            goes_anywhere = least > 1 and session.lowest_rewind <= 1
            rest = self._rest(inputs.parts, session, least if goes_anywhere else 1)
            self.num_known = session.position
            return rest
        parts = as_parts(inputs)
        if any(part.kind not in ("text", "tokens") for part in parts):
            self.forget()
        return parts

    def _rest(
        self, parts: Sequence[MultimodalInput], session: _core.Session, least: int
    ) -> list[MultimodalInput]:
        segments = list(_segments(parts))
        digests = [_digest(segment) for segment in segments if isinstance(segment, list)]
        history, pending = session.history, session.pending_tokens
        if least > 1 and session.can_generate and not pending:
            position, rest = self._common(segments, digests, history, 0)
            if not rest and position == len(history):  # its logits are at hand
                return []
        position, rest = self._common(segments, digests, [*history, *pending], least)
        if goes_back := position < len(history) + len(pending):
            # What is pending would be read first, but the conversation goes on without it.
            position, rest = self._common(segments, digests, history, least)
        self._media = digests
        if goes_back:
            try:
                session.rewind(position)
            except ExecutorchMMError:  # a context that has overwritten its past
                session.reset()
                rest = segments
        return [part for segment in rest for part in _as_inputs(segment)]

    def _common(
        self, segments: list[_Segment], digests: list[bytes], known_ids: Sequence[int], least: int
    ) -> tuple[int, list[_Segment]]:
        """Positions in common, and the segments behind them, with `least` tokens whose logits are wanted."""
        history = np.asarray(known_ids, dtype=np.int64)
        position = num_media = 0
        for index, segment in enumerate(segments):
            is_last = index == len(segments) - 1
            if isinstance(segment, list):
                length = _run_length(history[position:])
                known = self._media[num_media : num_media + 1] == digests[num_media : num_media + 1]
                if is_last or length == 0 or not known:
                    return position, segments[index:]
                num_media += 1
                position += length
                continue
            common = _common_length(segment, history[position:])
            common = min(common, max(len(segment) - least, 0)) if is_last else common
            position += common
            if common < len(segment):
                return position, [segment[common:], *segments[index + 1 :]]
        return position, []


def _segments(parts: Sequence[MultimodalInput]) -> Iterator[_Segment]:
    """Neighbours of one kind together."""
    for is_tokens, group in groupby(parts, lambda part: part.kind == "tokens"):
        members = list(group)
        if is_tokens:
            yield np.concatenate([np.asarray(part.value, dtype=np.int64) for part in members])
        else:
            yield members


def _as_inputs(segment: _Segment) -> list[MultimodalInput]:
    return segment if isinstance(segment, list) else [make_token_input(segment)]


def _common_length(ids: _Ids, history: _Ids) -> int:
    length = min(len(ids), len(history))
    differing = np.flatnonzero(ids[:length] != history[:length])
    return int(differing[0]) if differing.size else length


def _run_length(history: _Ids) -> int:
    others = np.flatnonzero(history != _MEDIA_POSITION)
    return int(others[0]) if others.size else len(history)


def _digest(media: Sequence[MultimodalInput]) -> bytes:
    """Of what images and audio show, so that an image that is loaded again is known again."""
    import hashlib

    from executorch_mm.preprocess import Waveform
    from executorch_mm.preprocess.exif import orientation_of
    from executorch_mm.preprocess.tiling import Tile

    digest = hashlib.blake2b(digest_size=16)
    for part in media:
        value = part.value
        if part.id is not None:
            digest.update(f"id of {part.kind} {part.id}\0".encode("utf-8", "surrogatepass"))
            continue
        if is_pil_image(value):
            seen = (
                value.mode,
                value.size,
                value.getpalette(),
                value.info.get("transparency"),
                orientation_of(value),
            )
            digest.update(repr(seen).encode())
            digest.update(value.tobytes())
            continue
        if isinstance(value, Tile):
            digest.update(f"{value} {value.image.pixels.shape}".encode() + value.image.digest)
            continue
        if isinstance(value, Waveform):
            digest.update(f"{value.sampling_rate} Hz".encode())
            value = value.samples
        if isinstance(value, PairedArrays):
            digest.update(np.ascontiguousarray(value.beside).data)
            value = value.values
        array = np.ascontiguousarray(value)
        digest.update(f"{part.kind} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.digest()
