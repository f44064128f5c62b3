"""Which tokens end an answer: what the program, the tokenizer and the files beside them say of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from executorch_mm._files.side_files import declared_eos_ids
from executorch_mm._loading.log_lines import package_logger
from executorch_mm.tokenizer import Tokenizer

_MARK = re.compile(r"<.+>|\[.+\]")  # some tokenizers forget to say that such a token is special


def end_tokens(named: Iterable[int], tokenizer: Tokenizer, folders: Sequence[Path]) -> list[int]:
    """The ids that end an answer, rising.

    Args:
        named: By the program.
        tokenizer: Of the model.
        folders: Where generation_config.json may name more.

    Raises:
        TokenizerError: A generation_config.json is not a JSON object.
    """
    wrong = ordinary_ends(named, tokenizer, folders)
    if wrong:
        package_logger().warning("%s", complaint(wrong, tokenizer))
    return sorted({*named, *_known_ends(tokenizer, folders)} - {*wrong})


def ordinary_ends(named: Iterable[int], tokenizer: Tokenizer, folders: Sequence[Path]) -> list[int]:
    """Ends that the program names and that are words of this vocabulary, where control tokens end its texts.

    Exporters write an end into the program whether they know it or not: export_llama up to 1.0.1 wrote 2,
    which is "#" for many a tokenizer.
    """
    known = _known_ends(tokenizer, folders)
    if not any(map(tokenizer.is_special, known)):
        return []
    return sorted(token for token in {*named} - known if _is_word(token, tokenizer))


def _is_word(token_id: int, tokenizer: Tokenizer) -> bool:
    token = tokenizer.id_to_token(token_id)
    return token is not None and not tokenizer.is_special(token_id) and not _MARK.fullmatch(token)


def complaint(wrong: Sequence[int], tokenizer: Tokenizer) -> str:
    """What is said of such ends."""
    words = ", ".join(f"{token} ({tokenizer.id_to_token(token)!r})" for token in wrong)
    ends = ", ".join(repr(tokenizer.id_to_token(token)) for token in sorted(tokenizer.eos_ids))
    return f"the program ends answers at {words}, which this vocabulary has for text; {ends or 'others'} do"


def _known_ends(tokenizer: Tokenizer, folders: Sequence[Path]) -> set[int]:
    return {*tokenizer.eos_ids, *(token for folder in folders for token in declared_eos_ids(folder))}
