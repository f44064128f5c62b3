"""Byte-level BPE in rank files: tiktoken's (base64 token and rank on a line) and Mistral's tekken.json."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from executorch_mm import _core
from executorch_mm._files.extras import import_extra, no_panic
from executorch_mm._files.json_files import read_object
from executorch_mm._files.side_files import BOS_TOKENS, SideFiles
from executorch_mm._tokenizers.base import PieceTokenizer, SpecialTokens, checked_id, load_failed
from executorch_mm.errors import TokenizerError

# How Llama 3 cuts text into words before merging (also cl100k's, but for the possessive quantifiers).
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Their ids follow the last rank in this order; 256 in all, the rest reserved.
LLAMA3_SPECIAL_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
_NUM_LLAMA3_SPECIAL_TOKENS = 256


class _Encoding(Protocol):
    """The part of tiktoken.Encoding used here."""

    def encode_ordinary(self, text: str) -> list[int]: ...


class TiktokenTokenizer(PieceTokenizer):
    """Byte-level BPE over a table of ranks, merged by `tiktoken`; special tokens are found by us."""

    def __init__(
        self,
        path: Path,
        pattern: str,
        ranks: Mapping[bytes, int],
        special: Mapping[str, int],
        plain_added: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(str(path))
        module = import_extra("tiktoken", "tiktoken", f"the tokenizer {path}")
        try:
            with no_panic(str(path), TokenizerError):
                self._encoding: _Encoding = module.Encoding(
                    name=path.name, pat_str=pattern, mergeable_ranks=dict(ranks), special_tokens={}
                )
        except ValueError as error:
            raise load_failed(f"{path}: tiktoken refuses it ({error})") from error
        self._special = SpecialTokens(special)
        self._control_ids = frozenset(i for text, i in special.items() if text not in plain_added)
        self._pieces = {rank: piece for piece, rank in ranks.items()}
        self._ranks = ranks
        self._pieces |= {i: text.encode("utf-8") for text, i in special.items()}
        self.vocab_size = max(self._pieces) + 1
        side = SideFiles.beside(path)
        self.adds_bos = side.adds_bos is True
        bos_id = side.bos_id(self.token_to_id)
        known = (self.token_to_id(token) for token in BOS_TOKENS if token in special)
        self.bos_id = bos_id if bos_id is not None else next((i for i in known if i is not None), None)
        self._eos_to_add, self.eos_ids = side.eos(self.token_to_id, self.is_special)

    def _encode(self, text: str) -> list[int]:
        return self._encode_parts([text], frozenset())

    def text_tokens(self) -> dict[str, int]:
        """The special tokens, by their text."""
        return dict(self._special.ids)

    def _encode_parts(self, parts: Sequence[str | int], plain: frozenset[str]) -> list[int]:
        ids: list[int] = []
        for part in self._special.split_parts(parts, plain):
            if isinstance(part, int):
                ids.append(part)
            else:
                with no_panic(f"tokenizer {self._path}", TokenizerError), _core.ForeignWork():
                    ids += self._encoding.encode_ordinary(part)
        return ids

    def _piece_of(self, token_id: int, start: int) -> tuple[bytes, int]:
        return self._pieces.get(token_id, b""), start

    def is_special(self, token_id: int) -> bool:
        """Whether the id is a control token."""
        return token_id in self._control_ids

    def id_to_token(self, token_id: int) -> str | None:
        """The token's bytes as text (broken UTF-8 as backslash escapes), or None."""
        piece = self._pieces.get(checked_id(token_id))
        return None if piece is None else piece.decode("utf-8", "backslashreplace")

    def token_to_id(self, token: str) -> int | None:
        """The id of a special token or of the token with exactly this text, or None."""
        special = self._special.ids.get(token)
        return self._ranks.get(token.encode("utf-8")) if special is None else special


def load_tiktoken(path: Path) -> TiktokenTokenizer:
    """Reads a file of base64 tokens and ranks.

    The file says nothing about words and special tokens: special tokens come from tokenizer_config.json
    beside it (added_tokens_decoder), else they are Llama 3's, after the last rank; the pattern is Llama 3's.

    Raises:
        TokenizerError: A line is not "base64 rank".
        MissingDependencyError: `tiktoken` is not installed.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise load_failed(f'{path}: line {number} is not "base64 rank" ({error})') from error
    if not ranks:
        raise load_failed(f"{path}: no token in it")
    added = SideFiles.beside(path).added_tokens
    if added:
        special = {text: token_id for text, (token_id, _) in added.items()}
        plain = frozenset(text for text, (_, is_control) in added.items() if not is_control)
        return TiktokenTokenizer(path, LLAMA3_PATTERN, ranks, special, plain)
    names = list(LLAMA3_SPECIAL_TOKENS)
    num_reserved = _NUM_LLAMA3_SPECIAL_TOKENS - len(names)
    names += [f"<|reserved_special_token_{2 + i}|>" for i in range(num_reserved)]
    first = max(ranks.values()) + 1
    return TiktokenTokenizer(path, LLAMA3_PATTERN, ranks, {name: first + i for i, name in enumerate(names)})


# Special tokens of tekken.json files that do not list theirs (the first two versions of the format).
_TEKKEN_SPECIAL_TOKENS = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"),
    *("[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)


def load_tekken(path: Path) -> TiktokenTokenizer:
    """Reads Mistral's tekken.json: special tokens first, then the ranks shifted by their number.

    Raises:
        TokenizerError: The file is not JSON or a part is missing.
        MissingDependencyError: `tiktoken` is not installed.
    """
    try:
        content: dict[str, Any] = read_object(path, load_failed)
        config = content["config"]
        num_special = int(config["default_num_special_tokens"])
        num_ranks = int(config["default_vocab_size"]) - num_special
        ranks = {
            base64.b64decode(entry["token_bytes"], validate=True): int(entry["rank"]) + num_special
            for entry in content["vocab"]
            if int(entry["rank"]) < num_ranks
        }
        listed = content.get("special_tokens")
        special = {f"<SPECIAL_{i}>": i for i in range(num_special)}
        if listed is None:
            names = dict(enumerate(_TEKKEN_SPECIAL_TOKENS[:num_special]))
        else:
            names = {int(entry["rank"]): str(entry["token_str"]) for entry in listed}
        special = {text: i for text, i in special.items() if i not in names} | {
            text: i for i, text in names.items()
        }
        return TiktokenTokenizer(path, str(config["pattern"]), ranks, special)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        if isinstance(error, TokenizerError):
            raise
        raise load_failed(f"{path}: not a usable tekken.json ({type(error).__name__}: {error})") from error
