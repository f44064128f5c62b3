"""Which tokens stand for images and audio in a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from executorch_mm._files.json_files import read_object_if_there
from executorch_mm.errors import InputError

_CONFIG_KEYS = {
    "image": ("image_token_id", "image_token_index"),
    "audio": ("audio_token_id", "audio_token_index"),
}
_SPELLINGS = {
    "image": ("<|image|>", "<image_soft_token>", "<|image_pad|>", "<image>"),
    "audio": ("<|audio|>", "<audio_soft_token>", "<audio>"),
}


@dataclass(frozen=True)
class MediaTokens:
    """Their ids; -1 where nothing tells.

    Attributes:
        image: For each row of an image.
        audio: For each row of a clip.
    """

    image: int = -1
    audio: int = -1

    @classmethod
    def find(cls, folders: Sequence[Path], token_to_id: Callable[[str], int | None]) -> MediaTokens:
        """What config.json of the model says, else the tokens of the usual spellings.

        Args:
            folders: Of the model, in the order to look in.
            token_to_id: The vocabulary.

        Raises:
            InputError: A config.json is damaged.
        """
        configs = [read_object_if_there(folder / "config.json", InputError) for folder in folders]

        def found(kind: str) -> int:
            for config in configs:
                for key in _CONFIG_KEYS[kind]:
                    value = config.get(key)
                    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                        return value
            ids = (_known(token_to_id, spelling) for spelling in _SPELLINGS[kind])
            return next((one for one in ids if one is not None), -1)

        return cls(found("image"), found("audio"))


def _known(token_to_id: Callable[[str], int | None], spelling: str) -> int | None:
    try:
        return token_to_id(spelling)
    except (KeyError, ValueError):  # a tokenizer of a caller's own that refuses what it does not know
        return None
