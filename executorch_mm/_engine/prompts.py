"""Prompts of a session: what of them is known already, whether they fit, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypedDict

from executorch_mm import _core
from executorch_mm._engine.access import Access, Progress, read_prompt
from executorch_mm._engine.callbacks import checked_callback
from executorch_mm.config import GenerationConfig
from executorch_mm.errors import CapacityError, ExecutorchMMError, InputError
from executorch_mm.inputs import MultimodalInput, Prompt, as_parts
from executorch_mm.sampling import NEVER, deadline_ns, generation_options

if TYPE_CHECKING:
    from executorch_mm._engine.loaded import Loaded
    from executorch_mm._engine.prefix_store import Hit
    from executorch_mm._engine.prompt_encoding import PromptEncoder
    from executorch_mm.preprocess.tiling import CutImage


class AboutPrompt(TypedDict):
    """What `make_stats` takes of the last prompt."""

    prepare_ns: int
    input_notes: tuple[str, ...]
    num_known: int
    num_cached: int


class Prompts(Access[_core.Session]):
    """Reads the prompts of a session.

    Args:
        session: The session; nobody else uses it.
        loaded: The model.
        what: The session's name for messages, such as "runner".

    Attributes:
        prefix_cache: What the context holds of chats.
    """

    def __init__(self, session: _core.Session, loaded: Loaded, what: str) -> None:
        super().__init__(session, loaded.load_start_ns, loaded.load_ns, what, loaded.admission)
        self._loaded = loaded
        from executorch_mm._engine.prefix_reuse import PrefixCache  # here: it takes long to import

        self.prefix_cache = PrefixCache()
        self._prepare_ns = 0  # of the last prompt
        self._input_notes: tuple[str, ...] = ()  # the same
        self._num_reused = 0  # the same: positions from another conversation
        self._is_read = False  # the same: it was not taken back

    @property
    def encoder(self) -> PromptEncoder:
        """Turns prompts into what the session reads."""
        return self._loaded.encoder

    def cut(self, image: MultimodalInput) -> CutImage | None:
        """An image in tiles, if the encoder looks at them one by one; see `PromptEncoder.cut`."""
        _ = self.session  # refuses once closed
        return self.encoder.cut(image)

    def count_positions(self, inputs: Prompt, config: GenerationConfig) -> int:
        """`MultimodalRunner.count_positions`."""

        def count(session: _core.Session) -> int:
            prompt = self._prepare(session, as_parts(inputs), config)
            positions = session.count_positions(prompt)
            if positions is None:
                raise InputError(
                    "count_positions: expected an encoder whose number of rows the program says, got one "
                    "that has to run first: prefill() tells"
                )
            return positions

        return self.run(count)

    def prefill(self, inputs: Prompt, config: GenerationConfig, progress: Progress | None) -> int:
        """Reads a prompt; returns the position behind it."""
        progress = checked_progress(progress)

        def read(session: _core.Session) -> int:
            self.read(session, self.prefix_cache.to_read(inputs, session), config, progress)
            self.stats = self.make_stats(session, **self.about_prompt(session))
            return session.position

        return self.serve(read)

    def about_prompt(self, session: _core.Session) -> AboutPrompt:
        """What `make_stats` takes of the last prompt."""
        known = self.prefix_cache.num_known + self._num_reused if self._is_read else 0
        is_cached = session.contract.position_style != "none"  # such a program reads all of it at each step
        return {
            "prepare_ns": self._prepare_ns,
            "input_notes": self._input_notes,
            "num_known": known,
            "num_cached": known if is_cached else 0,
        }

    def _prepare(
        self, session: _core.Session, /, parts: list[MultimodalInput], config: GenerationConfig
    ) -> list[_core.PreparedInput]:
        """The prompt as the session reads it."""
        return self.encoder.encode(parts, config, is_start=session.position == 0)

    def read(
        self,
        session: _core.Session,
        parts: list[MultimodalInput],
        config: GenerationConfig,
        progress: Progress | None = None,
        is_answered: bool = False,
    ) -> bool:
        """Reads a prompt for the one who has been let in.

        Args:
            session: Stands where the prompt goes on.
            parts: The prompt.
            config: num_bos, num_eos and timeout matter; seq_len too where it is answered.
            progress: As in `MultimodalRunner.generate`.
            is_answered: Whether at least one token is to follow.

        Returns:
            Whether it was read to its end, and not taken back.
        """
        self._prepare_ns = 0
        self._input_notes = tuple(note for part in parts for note in part.notes)
        self._num_reused, self._is_read = 0, True
        if not parts and session.can_generate:
            return True
        self._is_read = False
        start_ns = session.timings.start_ns
        end_ns = deadline_ns(config.timeout, start_ns)
        prompt = self._prepare(session, parts, config)
        self._prepare_ns = _core.now_ns() - start_ns
        hit = None
        try:
            hit = self._begin(session, prompt, config, is_answered)
            self._is_read = read_prompt(session, end_ns, progress)
            if self._is_read and progress is not None and (hit is None or hit.rest):
                progress(session.prefill_done, session.prefill_total, "prefill")
        finally:
            session.abort_prefill()  # nothing to do once the prompt has been read
            if hit is not None and not self._is_read:
                hit.undo(session)
        if self._is_read:
            self._num_reused = 0 if hit is None else hit.num_positions
            self._loaded.prefixes.keep(session)
        return self._is_read

    def _begin(
        self,
        session: _core.Session,
        prompt: list[_core.PreparedInput],
        config: GenerationConfig,
        is_answered: bool,
    ) -> Hit | None:
        """Begins to read a prompt, behind what another conversation has read of it."""
        hit = self._loaded.prefixes.take(session, prompt)
        try:
            _plan(session, prompt if hit is None else hit.rest or None, config, is_answered)
        except ExecutorchMMError:
            if hit is None:
                raise
            session.abort_prefill()
            hit.undo(session)
            _plan(session, prompt, config, is_answered)  # says of the whole prompt what is wrong with it
            return None
        return hit

    def warmup(self) -> None:
        """`MultimodalRunner.warmup`."""
        self.run(self._warm_up)

    def _rehearsal(self) -> Iterator[list[_core.PreparedInput]]:
        """Prompts that together run every method of the model."""
        return ([part] for part in self.encoder.rehearsal())

    def _warm_up(self, session: _core.Session) -> None:
        if not session.position:
            options = generation_options(GenerationConfig(max_new_tokens=2, ignore_eos=True), ())
            for prompt in self._rehearsal():
                try:
                    session.begin_request()
                    session.begin_prefill(prompt)
                    read_prompt(session, NEVER)
                    generation = _core.Generation(session, options)
                    while generation.next() is not None:
                        pass
                finally:
                    session.reset()


def checked_progress(progress: Progress | None) -> Progress | None:
    return None if progress is None else checked_callback(progress, "progress")


def _plan(
    session: _core.Session,
    prompt: list[_core.PreparedInput] | None,
    config: GenerationConfig,
    is_answered: bool,
) -> None:
    """Begins to read a prompt; None is one of which nothing is left to read."""
    if prompt is not None:
        session.begin_prefill(prompt)
    if is_answered:
        _expect_room(session, config, 0 if prompt is None else session.prefill_total)


def _expect_room(session: _core.Session, config: GenerationConfig, num_positions: int) -> None:
    """Refuses, before anything is computed, a prompt after which seq_len leaves no token to generate.

    The context itself may be filled to the last position: the token sampled there needs no room.
    """
    start = 0 if session.contract.is_unbounded else session.position
    if config.max_new_tokens == 0 or not -1 < config.seq_len < session.contract.capacity:
        return
    needed, available = num_positions + 1, max(config.seq_len - start, 0)
    if needed > available:
        raise CapacityError(
            f"the prompt and one token of an answer need {needed} positions, {available} of "
            f"seq_len={config.seq_len} are free",
            needed,
            available,
        )
