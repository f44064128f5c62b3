"""Tokenizers: text to token ids and back, a token at a time and byte-exact.

`load_tokenizer` looks at a file and picks the adapter:

| file                                             | read by         | needs the extra |
|--------------------------------------------------|-----------------|-----------------|
| tokenizer.json                                   | `tokenizers`    |                 |
| SentencePiece .model                             | `sentencepiece` | sentencepiece   |
| base64 ranks (.tiktoken, .model), tekken.json    | `tiktoken`      | tiktoken        |
| llama2.c .bin                                    | this package    |                 |

SentencePiece models and base64 ranks get more tokens from added_tokens_decoder in tokenizer_config.json.
"""

from __future__ import annotations

import os

from executorch_mm._tokenizers.protocol import Tokenizer
from executorch_mm._tokenizers.utf8 import IncrementalDecoder

__all__ = ["IncrementalDecoder", "Tokenizer", "load_tokenizer"]


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Reads a tokenizer file of any supported kind, recognised by its content.

    Args:
        path: The file, or a folder that holds one. In a folder tokenizer.json is taken when there is one
            (published models put the same tokenizer in older formats beside it).

    Raises:
        TokenizerError: The file is missing, damaged or of another kind (the message says what it looks like),
            or the folder holds no tokenizer or several.
        MissingDependencyError: The format needs an extra that is not installed; the message names it.

    Examples:
        >>> tokenizer = load_tokenizer("model/tokenizer.json")  # doctest: +SKIP
        >>> tokenizer.decode(tokenizer.encode("two red circles"))  # doctest: +SKIP
        'two red circles'
    """
    from executorch_mm._tokenizers import detect  # here: the package is imported faster without it

    return detect.load(path)
