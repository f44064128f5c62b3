"""Models as what they are: the kind is found in the program."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from executorch_mm import (
    ClipModel,
    ContractError,
    EmbeddingModel,
    InputError,
    MediaLimits,
    MultimodalModel,
    MultimodalRunner,
    SpeechModel,
    SpeechRunner,
    set_media_limits,
)
from executorch_mm.server.models import LanguageModel, Model
from executorch_mm.server.options import ServerOptions

PathLike: TypeAlias = "str | os.PathLike[str]"
NumThreads: TypeAlias = "int | Literal['auto']"

_MOST_SECONDS, _MOST_PIXELS = 3600, 50_000_000  # of a clip and an image of a stranger


def load_model(
    model: PathLike,
    tokenizer: PathLike | None = None,
    *,
    data_path: Sequence[PathLike] = (),
    num_threads: NumThreads = "auto",
    draft_model: PathLike | None = None,
) -> Model:
    """A language model, one that writes down speech, or one that gives vectors, whichever the program is.

    Args:
        model: The .pte file, or an export folder.
        tokenizer: The folder of the tokenizer and what else describes the model; None for the model's.
        data_path: .ptd files of the model.
        num_threads: Of the model.
        draft_model: A smaller model that drafts its answers; for a language model only.

    Raises:
        InputError: A draft model for another kind.
        ExecutorchMMError, OSError: It cannot be loaded.
    """
    data = tuple(data_path)
    ways: list[Callable[[], Model]] = [
        lambda: _language_model(model, tokenizer, data, num_threads, draft_model),
        lambda: SpeechModel(model, tokenizer, data_path=data, num_threads=num_threads),
        lambda: SpeechRunner(model, tokenizer, data_path=data, num_threads=num_threads),
        lambda: ClipModel(model, tokenizer, num_threads=num_threads),
        lambda: EmbeddingModel(model, tokenizer, config_path=tokenizer, num_threads=num_threads),
    ]
    refusals = []
    for load in ways:
        try:
            return load()
        except ContractError as error:  # noqa: PERF203 (the program is of another kind)
            refusals.append(error)
            if draft_model is not None:
                raise InputError(f"draft_model: expected with it a language model: {error}") from error
    raise refusals[0]


def _language_model(
    model: PathLike,
    tokenizer: PathLike | None,
    data: tuple[PathLike, ...],
    num_threads: NumThreads,
    draft_model: PathLike | None,
) -> LanguageModel:
    loaded = MultimodalModel(
        model, tokenizer, data_path=data, num_threads=num_threads, draft_model=draft_model
    )
    try:
        loaded.session().close()
    except InputError:  # its state lies in a delegate, or the like: one conversation at a time
        loaded.close()
        return MultimodalRunner(
            model, tokenizer, data_path=data, num_threads=num_threads, draft_model=draft_model
        )
    return loaded


def limit_media(options: ServerOptions) -> None:
    """Bounds images and audio of this process to what strangers may send.

    Args:
        options: Of the server.
    """
    set_media_limits(
        MediaLimits(file_bytes=options.max_body_bytes, image_pixels=_MOST_PIXELS, audio_seconds=_MOST_SECONDS)
    )
