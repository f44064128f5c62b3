#!/usr/bin/env bash
# Two kinds of JSON that llguidance lets through, or forces, although the schema says otherwise.
#
# Behaviour 1: an integer constant beyond 2**53 is rounded to a float: {"const": 9007199254740993} allows 9007199254740992 alone.
# Behaviour 2: a key that is written with an escape is not the key that it spells: beside a string property "name", the text
# {"n\u0061me": 7} is complete, and every JSON parser reads {"name": 7}.
# Seen with llguidance 1.9.1, CPython 3.11, Linux x86-64, 2026-11-28.
# Here: such constants are refused with their path, and a complete answer is parsed and held against its schema (docs/generation.md).
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" && "$work/env/bin/pip" install -q "llguidance==1.9.1"
"$work/env/bin/python" - <<'PY' | tee "$work/seen"
import json
from llguidance import LLMatcher, LLTokenizer

tokenizer = LLTokenizer("byte")

def accepts(schema, text):
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    tokens = list(text.encode())
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()

big = {"const": 9007199254740993}
print(accepts(big, "9007199254740993"), accepts(big, "9007199254740992"))
named = {"type": "object", "properties": {"name": {"type": "string"}}}
text = '{"n\\u0061me":7}'
print(accepts(named, '{"name":7}'), accepts(named, text), json.loads(text))
PY
diff "$work/seen" - <<'SEEN'
False True
False True {'name': 7}
SEEN
