#!/usr/bin/env bash
# A word added to a byte-level vocabulary does not come back from decode() if it holds a letter that stands for a byte.
#
# Behaviour: tokenizers' ByteLevel decoder maps every letter of a token that is in its table of bytes, letters of added tokens too. An
# added "café" encodes to its one id, and decodes to "caf" and the byte 0xE9, which is no UTF-8: U+FFFD. transformers inherits it.
# Seen with tokenizers 0.23.3, CPython 3.11, Linux x86-64, 2026-11-28.
# Here: this package decodes added tokens as they were written (tests/python/tokenizer/test_added_tokens.py).
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" && "$work/env/bin/pip" install -q "tokenizers==0.23.3"
"$work/env/bin/python" - <<'PY' | tee "$work/seen"
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.add_tokens(["café"])
ids = tokenizer.encode("café").ids
print(len(ids), ascii(tokenizer.decode(ids)))
print(ascii(tokenizer.decode(tokenizer.encode("cafés").ids[:1])), ascii(tokenizer.decode(tokenizer.encode("thé").ids)))
PY
diff "$work/seen" - <<'SEEN'
1 'caf\ufffd'
'caf\ufffd' 'th\xe9'
SEEN
