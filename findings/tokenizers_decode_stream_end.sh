#!/usr/bin/env bash
# tokenizers' DecodeStream cannot be told that a text is over, and keeps what ends in U+FFFD for itself.
#
# Behaviour: a text whose last characters are U+FFFD, or an answer that stops (a limit of tokens) in the middle of a character, comes
# out of `decode` with U+FFFD and never out of `step`: it waits for a next token, and there is no method that ends the stream. The
# pieces of a finished text are then shorter than the text.
# Seen with tokenizers 0.23.3, CPython 3.12, Linux x86-64, 2026-11-30.
# Here: streams end with what is left, so the pieces are always the whole text (tests/python/runner/test_text_stream.py).
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" && "$work/env/bin/pip" install -q "tokenizers==0.23.3"
"$work/env/bin/python" - <<'PY' | tee "$work/seen"
from tokenizers import Tokenizer, decoders, models
from tokenizers.decoders import DecodeStream

byte_tokens = [(f"<0x{value:02X}>", -10.0) for value in range(256)]
tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *byte_tokens, ("a", -2.0)], unk_id=0, byte_fallback=True))
tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])

def streamed(ids):
    stream = DecodeStream(skip_special_tokens=False)
    return "".join(filter(None, (stream.step(tokenizer, token) for token in ids)))

for name, ids in (
    ("in the middle", tokenizer.encode("a\ufffda").ids),
    ("at the end", tokenizer.encode("a\ufffd").ids),
    ("half a character", tokenizer.encode("aé").ids[:-1]),
):
    print(f"{name}: decode {tokenizer.decode(ids)!a}, stream {streamed(ids)!a}")
print([name for name in dir(DecodeStream) if not name.startswith("_")])
PY
diff "$work/seen" - <<'SEEN'
in the middle: decode 'a\ufffda', stream 'a\ufffda'
at the end: decode 'a\ufffd', stream 'a'
half a character: decode 'a\ufffd', stream 'a'
['step']
SEEN
