"""The runner's methods for its conversation: back, anew, saved, and with another method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm._engine.access import Progress
from executorch_mm._engine.requests import Requests
from executorch_mm._loading.option_checks import optional_path
from executorch_mm._loading.options import PathLike
from executorch_mm._loading.shown_options import show_options
from executorch_mm.config import SHOWN, GenerationConfig, GenerationOptions, with_options
from executorch_mm.errors import InputError, shown
from executorch_mm.inputs import Prompt
from executorch_mm.stats import counted

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from executorch_mm._engine.state_file import StateDType
    from executorch_mm._loading.identity import ModelIdentity


@dataclass(frozen=True, repr=False)
class Snapshot:
    """A saved conversation, for `restore` of the runner that made it, or of any session of its model."""

    _state: _core.Snapshot
    _model: ModelIdentity
    _media: tuple[bytes, ...] = ()  # digests of what images and audio it holds

    @property
    def position(self) -> int:
        """Positions of the context in use when it was saved."""
        return self._state.position

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the saved state takes."""
        return self._state.nbytes

    def __repr__(self) -> str:
        return f"<Snapshot: {counted(self.position, 'position')}, {self.nbytes:,} bytes>"


class ConversationMethods:
    """The conversation of a runner that has requests."""

    _requests: Requests
    _identity: ModelIdentity

    def prefill(
        self,
        inputs: Prompt,
        config: GenerationConfig | None = None,
        *,
        progress: Progress | None = None,
        **options: Unpack[GenerationOptions],
    ) -> int:
        """Reads a prompt without answering it.

        Args:
            inputs: As in `generate`.
            config: Only num_bos, num_eos and timeout matter.
            progress: As in `generate`.
            **options: As in `generate`.

        Returns:
            Positions of the context in use. After a `stop()` meanwhile or a timeout, the prompt is not in it.

        Raises:
            InputError, CapacityError, ExecutionError, BusyError: As in `generate`.
        """
        return self._requests.prefill(inputs, with_options(config, options), progress)

    def count_positions(
        self,
        inputs: Prompt,
        config: GenerationConfig | None = None,
        **options: Unpack[GenerationOptions],
    ) -> int:
        """Positions of the context that a prompt would take. The model does not run.

        Args:
            inputs: As in `generate`.
            config: Only num_bos and num_eos matter.
            **options: As in `generate`.

        Returns:
            Positions, with the token of the last answer that is read first, if there is one. It may be more
            than the context has room for.

        Raises:
            InputError: The model does not take such an input; or it has an image or audio whose positions
                only its encoder can tell.
            BusyError: A request is running.
        """
        return self._requests.count_positions(inputs, with_options(config, options))

    def reset(self) -> None:
        """Forgets the conversation: the model's state is what it was after loading.

        Raises:
            BusyError: A request is running.
        """
        self._requests.run(lambda session: session.reset())

    def rewind(self, position: int) -> None:
        """Forgets the positions from `position` on, so that the next prompt continues there.

        Args:
            position: 0 to the current `position`. Models with ring caches (`contract.ring_rows`) go back only
                as far as nothing they need has been overwritten, models with a recurrent state
                (`contract.is_recurrent`) only to 0; `save()` and `restore()` work for all.

        Raises:
            InputError: Another position than these; the message names those that are possible.
            BusyError: A request is running.
        """
        given: object = position
        if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 2**62:
            raise InputError(f"position: expected 0 to {self.position}, got {shown(position)}")

        def go_back(session: _core.Session) -> None:
            history = session.history
            session.rewind(position)
            self._requests.prefix_cache.cut(history, position)

        self._requests.run(go_back)

    @property
    def methods(self) -> tuple[str, ...]:
        """The decoders of the program, from which `method=` and `use_method` choose."""
        return tuple(self._session.contract.choices)

    @property
    def method(self) -> str:
        """The decoder in use; of "prefill" with "decode" the one that reads prompts."""
        return self._session.contract.decoder

    def use_method(self, name: str) -> None:
        """Another decoder answers from now on, such as one with an adapter (LoRA).

        It is loaded when it is first used. Where the decoders share their cache
        (`contract.is_state_shared`), the conversation goes on: what was read stays as the method before has
        read it, and is not read anew. Where each has its own, the conversation must be empty.

        Args:
            name: One of `methods`.

        Raises:
            InputError: There is no such method; or it has a cache of its own and the conversation has begun:
                `reset()` first.
            ModelLoadError: It cannot be loaded.
            BusyError: A request is running.
        """
        checked = checked_method(name, self._session.contract)
        self._requests.run(lambda session: session.use_method(checked))

    def save(self, path: PathLike | None = None, *, dtype: StateDType = "float32") -> Snapshot:
        """Copies the conversation's state: cache, position, history; with a path into a file too.

        The file goes on in another process, where `restore` reads it. It is written beside its place and put
        there once it is on the disk, with a checksum, readable by its owner alone: whatever goes wrong, a
        file that was there before still is. More: https://executorch-mm.example/docs/state.html

        Args:
            path: Of the file, such as "chat.emm".
            dtype: How a file keeps caches of float32: "float32" exactly, "float16" in half and "int8" in less
                than a third of the room, rounded. Other caches and recurrent states are kept exactly.

        Raises:
            StateFileError: The file cannot be written, or the model's file has changed since it was loaded.
            InputError: The state lies in a delegate, where it cannot be copied; or `dtype` is unknown, does
                not hold the numbers in the cache, or is there without a path.
            BusyError: A request is running.
        """
        file = optional_path(path, "path")
        if not isinstance(dtype, str):
            raise InputError(f"dtype: expected a str, got {shown(dtype)}")
        if file is None and dtype != "float32":
            raise InputError(
                f"dtype: expected a path with {shown(dtype)}, which is how a file keeps the state"
            )
        snapshot = self._requests.run(
            lambda session: Snapshot(session.save(), self._identity, self._requests.prefix_cache.media)
        )
        if file is not None:
            from executorch_mm._engine.state_file import save_state  # here: few need it

            save_state(file, snapshot._state, snapshot._media, self.contract, self._identity, dtype)
        return snapshot

    def restore(self, snapshot: Snapshot | PathLike) -> None:
        """Returns to a saved conversation; a snapshot can be restored any number of times.

        A chat goes on without reading its images and audio again.

        Args:
            snapshot: From `save()` of this runner, or of a session of the same model, or the path of a file
                that `save` wrote with the same model and tokenizer, in whatever process.

        Raises:
            InputError: The snapshot is another runner's.
            StateFileError: There is no such file, it is damaged, or of another model or tokenizer. Nothing
                has changed.
            BusyError: A request is running.
        """

        def restore(session: _core.Session) -> None:
            if isinstance(snapshot, Snapshot):
                if snapshot._model is not self._identity:
                    raise InputError("snapshot: expected one that this runner saved, got another runner's")
                session.restore(snapshot._state)
                media: Sequence[bytes] = snapshot._media
            else:
                from executorch_mm._engine.state_file import load_state  # here: few need it

                media = load_state(snapshot, session, self._identity)
            self._requests.prefix_cache.remember(media)

        self._requests.run(restore)

    @property
    def contract(self) -> _core.Contract:
        """What the model file promises: methods, shapes, limits, metadata."""
        return self._session.contract

    @property
    def position(self) -> int:
        """Positions of the context in use."""
        return self._session.position

    @property
    def capacity(self) -> int:
        """Positions the context holds."""
        return self._session.contract.capacity

    @property
    def history(self) -> list[int]:
        """Token ids in the context; -1 for each position that came from an image, audio or embeddings."""
        return self._session.history

    @property
    def _session(self) -> _core.Session:
        return self._requests.session


def checked_method(name: object, contract: _core.Contract) -> str:
    """The name of one of a program's decoders.

    Raises:
        InputError: It is none.
    """
    if not isinstance(name, str) or name not in contract.choices:
        got = name if isinstance(name, str) else shown(name)
        raise InputError(f"method: expected one of {', '.join(contract.choices)}, got {got}")
    return name


show_options(ConversationMethods, SHOWN)
