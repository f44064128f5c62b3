"""What the JSON files beside a tokenizer say about the beginning and the end of a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from executorch_mm._files.json_files import read_object_if_there
from executorch_mm.errors import TokenizerError

# Control tokens by which published models end a text or a turn, whatever their configuration declares: many a
# chat model's tokenizer_config.json only names the end of a document.
END_TOKENS = (
    "</s>",
    "<eos>",
    "<|eos|>",
    "<|end|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end_of_turn|>",
    "<|return|>",
    "<end_of_utterance>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",  # DeepSeek's, with full-width bars
)
BOS_TOKENS = ("<s>", "<bos>", "<|bos|>", "<|begin_of_text|>", "<|startoftext|>")


@dataclass(frozen=True)
class SideFiles:
    """BOS and EOS as declared next to the tokenizer.

    Attributes:
        bos_tokens: Candidates by text, best first.
        bos_ids: Candidates by id, used when no text is known to the vocabulary.
        eos_tokens: All declared ends, by text, the tokenizer's own first.
        eos_ids: All declared ends, by id.
        adds_bos: Whether texts are to begin with BOS; None when no file says so.
        added_tokens: Text to (id, whether it is a control token), from tokenizer_config.json's
            added_tokens_decoder.
    """

    bos_tokens: tuple[str, ...]
    bos_ids: tuple[int, ...]
    eos_tokens: tuple[str, ...]
    eos_ids: tuple[int, ...]
    adds_bos: bool | None
    added_tokens: dict[str, tuple[int, bool]]

    @classmethod
    def beside(cls, path: Path) -> SideFiles:
        """Reads what there is in the folder of `path`.

        Raises:
            TokenizerError: One of the files is there but is not a JSON object.
        """
        tokenizer_config = read_object_if_there(path.with_name("tokenizer_config.json"), TokenizerError)
        special_map = read_object_if_there(path.with_name("special_tokens_map.json"), TokenizerError)
        generation = read_object_if_there(path.with_name("generation_config.json"), TokenizerError)
        config = read_object_if_there(path.with_name("config.json"), TokenizerError)
        text_config = config.get("text_config")
        models = [generation, config, text_config if isinstance(text_config, dict) else {}]
        return cls(
            bos_tokens=_texts(tokenizer_config.get("bos_token"), special_map.get("bos_token")),
            bos_ids=_ids(model.get("bos_token_id") for model in models),
            eos_tokens=_texts(tokenizer_config.get("eos_token"), special_map.get("eos_token")),
            eos_ids=_ids(model.get("eos_token_id") for model in models),
            adds_bos=_flag(tokenizer_config.get("add_bos_token")),
            added_tokens=_added_tokens(tokenizer_config.get("added_tokens_decoder")),
        )

    def bos_id(self, token_to_id: Callable[[str], int | None]) -> int | None:
        """The BOS id that the files declare, or None."""
        by_text = (token_to_id(token) for token in self.bos_tokens)
        return next((token_id for token_id in (*by_text, *self.bos_ids) if token_id is not None), None)

    def eos(
        self,
        token_to_id: Callable[[str], int | None],
        is_special: Callable[[int], bool],
        also: Iterable[int] = (),
    ) -> tuple[int | None, frozenset[int]]:
        """The EOS id to append, and the set of all plausible ends: declared, `also`, and known by name."""
        declared = [token_to_id(token) for token in self.eos_tokens]
        known = {token: token_to_id(token) for token in END_TOKENS}
        if known["<|return|>"] is not None:
            known["<|end|>"] = None  # in the harmony format <|end|> separates messages of one answer
        ends = [*declared, *also, *self.eos_ids]
        ends += [token_id for token_id in known.values() if token_id is not None and is_special(token_id)]
        ids = [token_id for token_id in ends if token_id is not None]
        return (ids[0] if ids else None), frozenset(ids)


def declared_eos_ids(folder: Path) -> tuple[int, ...]:
    """The ends of a text that a model's generation_config.json names; () without one.

    Raises:
        TokenizerError: The file is there but is not a JSON object.
    """
    generation = read_object_if_there(folder / "generation_config.json", TokenizerError)
    return _ids([generation.get("eos_token_id")])


def declared_id(folders: Iterable[Path], key: str) -> int | None:
    """A token id that generation_config.json names, in the first of the folders that has it, or config.json.

    Raises:
        TokenizerError: A file is there but is not a JSON object.
    """
    for name in ("generation_config.json", "config.json"):
        for folder in folders:
            found = _ids([read_object_if_there(folder / name, TokenizerError).get(key)])
            if found:
                return found[0]
    return None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _texts(*values: object) -> tuple[str, ...]:
    """Token texts out of `"<s>"` or `{"content": "<s>", ...}`."""
    contents = (value.get("content") if isinstance(value, dict) else value for value in values)
    return tuple(content for content in contents if isinstance(content, str) and content)


def _ids(values: Iterable[object]) -> tuple[int, ...]:
    """Token ids out of `2` or `[2, 3]`."""
    ids: list[int] = []
    for value in values:
        items = value if isinstance(value, list) else [value]
        ids += [item for item in items if isinstance(item, int) and not isinstance(item, bool) and item >= 0]
    return tuple(ids)


def _added_tokens(value: object) -> dict[str, tuple[int, bool]]:
    if not isinstance(value, dict):
        return {}
    added = {}
    for key, entry in value.items():
        if not (isinstance(entry, dict) and str(key).isdigit()):
            continue
        content = entry.get("content")
        if isinstance(content, str) and content:
            added[content] = (int(key), entry.get("special") is not False)
    return added
