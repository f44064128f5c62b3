"""Which adapter a file needs, told by its content; and what to say when it is none of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from executorch_mm._files.json_files import read_object
from executorch_mm._files.paths import checked_path, expect_file
from executorch_mm._tokenizers.base import load_failed

if TYPE_CHECKING:
    from executorch_mm._tokenizers.protocol import Tokenizer

_EXPECTED = "expected tokenizer.json, a SentencePiece .model, tiktoken ranks, tekken.json or a llama2.c .bin"
_HEAD_BYTES = 4096
_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+=* \d+\s*(\r?\n|$)")


def load(given: str | os.PathLike[str]) -> Tokenizer:
    """See `executorch_mm.tokenizer.load_tokenizer`."""
    path = checked_path(given, "path", load_failed)
    try:
        file = find_in(path) if path.is_dir() else path
        expect_file(file)
        with file.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
        return _adapter(file, head)(file)
    except OSError as error:
        raise load_failed(f"{path}: {error.strerror or error}; {_EXPECTED}") from error
    except MemoryError as error:
        raise load_failed(f"{path}: not enough memory") from error


def find_in(folder: Path) -> Path:
    """The tokenizer file of a folder.

    Raises:
        TokenizerError: There is none, or there are several and none is tokenizer.json.
    """
    if (folder / "tokenizer.json").is_file():
        return folder / "tokenizer.json"
    names = ["tekken.json", "tokenizer.model", "tokenizer.bin", "*.tiktoken", "*.model"]
    found = sorted({file for name in names for file in folder.glob(name) if file.is_file()})
    if not found:
        raise load_failed(f"{folder}: no tokenizer in this folder; {_EXPECTED}")
    if len(found) > 1:
        candidates = ", ".join(file.name for file in found)
        raise load_failed(f"{folder}: several tokenizers in this folder ({candidates}); give the path of one")
    return found[0]


def _adapter(path: Path, head: bytes) -> Callable[[Path], Tokenizer]:
    """The loader for a file that begins with `head`.

    Raises:
        TokenizerError: It is none of ours.
    """
    _refuse_other_formats(path, head)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _json_adapter(path, head)
    if _RANK_LINE.match(head):
        from executorch_mm._tokenizers.tiktoken_ranks import load_tiktoken

        return load_tiktoken
    # A SentencePiece model begins with its first piece: field 1, its length, and in it field 1, the piece's
    # text.
    if head[:1] == b"\x0a" and head[2:3] == b"\x0a":
        from executorch_mm._tokenizers.sentencepiece_model import load_sentencepiece

        return load_sentencepiece
    from executorch_mm._tokenizers.llama2c import load_llama2c, read_vocabulary

    if path.suffix == ".bin" or read_vocabulary(path.read_bytes()) is not None:
        return load_llama2c
    raise load_failed(f"{path}: {_EXPECTED}")


def _refuse_other_formats(path: Path, head: bytes) -> None:
    """Names the common wrong files; the two paths of a runner are easily swapped."""
    if not head:
        raise load_failed(f"{path}: the file is empty; {_EXPECTED}")
    if head[4:8] in (b"ET12", b"ET11", b"ET10") or path.suffix == ".pte":
        raise load_failed(f"{path}: this is an ExecuTorch program (.pte), not a tokenizer; {_EXPECTED}")
    if head[:4] == b"GGUF":
        raise load_failed(f"{path}: this is a GGUF model, not a tokenizer; {_EXPECTED}")
    if head[:2] == b"PK":
        zipped = "a ZIP archive (a torch checkpoint?)"
        raise load_failed(f"{path}: this is {zipped}, not a tokenizer; {_EXPECTED}")
    if head.startswith(b"version ") and b"git-lfs" in head[:100]:
        raise load_failed(f"{path}: this is a Git LFS pointer; fetch the file itself (git lfs pull)")


def _json_adapter(path: Path, head: bytes) -> Callable[[Path], Tokenizer]:
    from executorch_mm._tokenizers.hf import load_hf

    # How `tokenizers` writes its files; spares reading tens of megabytes twice.
    if b'"version"' in head and b'"truncation"' in head:
        return load_hf
    content = read_object(path, load_failed)
    if isinstance(content.get("config"), dict) and isinstance(content.get("vocab"), list):
        from executorch_mm._tokenizers.tiktoken_ranks import load_tekken

        return load_tekken
    if isinstance(content.get("model"), dict):
        return load_hf
    keys = ", ".join(list(content)[:5])
    hint = "; give tokenizer.json from the same folder" if path.name != "tokenizer.json" else ""
    raise load_failed(f"{path}: JSON without a tokenizer in it (keys {keys}); {_EXPECTED}{hint}")
