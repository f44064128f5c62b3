#!/usr/bin/env bash
# tokenizers 0.20.0 writes the merges of a byte-level BPE as pairs; tokenizers 0.19.1 cannot read such a file, and does not say why.
#
# Behaviour: `Tokenizer.save` of 0.20.0 gives "merges": [["a", "b"]], 0.19.1 gives "merges": ["a b"]. Reading the first with 0.19.1
# ends in a bare Exception that names an internal Rust enum, neither the field nor the version that would do.
# Seen with tokenizers 0.19.1 and 0.20.0, CPython 3.11, Linux x86-64, 2026-11-28; the lines below are the output seen.
# Why it matters: a package that declares an older minimum installs well and fails when it opens a current model's tokenizer.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/old" && "$work/old/bin/pip" install -q "tokenizers==0.19.1"
python3 -m venv "$work/new" && "$work/new/bin/pip" install -q "tokenizers==0.20.0"

cat >"$work/make.py" <<'PY'
import json, sys
from tokenizers import Tokenizer, models
vocab = {"a": 0, "b": 1, "ab": 2}
Tokenizer(models.BPE(vocab, [("a", "b")])).save(sys.argv[1])
print(json.dumps(json.load(open(sys.argv[1]))["model"]["merges"]))
PY
cat >"$work/read.py" <<'PY'
import sys
from tokenizers import Tokenizer
try:
    print(Tokenizer.from_file(sys.argv[1]).encode("ab").ids)
except Exception as error:
    print(type(error).__name__, str(error).split(" at line")[0])
PY
{
  "$work/old/bin/python" "$work/make.py" "$work/old.json"
  "$work/new/bin/python" "$work/make.py" "$work/new.json"
  "$work/new/bin/python" "$work/read.py" "$work/old.json"
  "$work/old/bin/python" "$work/read.py" "$work/new.json"
} | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
["a b"]
[["a", "b"]]
[2]
Exception data did not match any variant of untagged enum ModelWrapper
SEEN
