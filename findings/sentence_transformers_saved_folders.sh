#!/usr/bin/env bash
# A model folder that sentence-transformers 6 has saved cannot be loaded by sentence-transformers 5, although nothing in it is new.
#
# Behaviour: modules.json names classes by their module path, and 6 has moved them (sentence_transformers.models.Normalize became
# sentence_transformers.base.modules.normalize.Normalize). 5.6.1 knows the new path of Transformer, but not that of Normalize, and
# ends in ModuleNotFoundError. The longest text has moved too: from sentence_bert_config.json to the tokenizer's model_max_length.
# Seen with sentence-transformers 6.2.0 and 5.6.1, transformers 5.24.0, torch 2.13.0 (CPU), CPython 3.11, Linux x86-64, 2026-11-29.
# Here: steps are told by the last part of their name, and both places are read (executorch_mm/embeddings/configuration.py).
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" && pip=("$work/env/bin/pip" install -q)
"${pip[@]}" "torch==2.13.0"
"${pip[@]}" "sentence-transformers==6.2.0" "transformers==5.24.0" "torch==2.13.0"
"${pip[@]}" --no-deps --target "$work/older" "sentence-transformers==5.6.1"
cat >"$work/save.py" <<'PY'
import json, sys
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

folder = sys.argv[1]
words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "red": 2, "circle": 3}, unk_token="[UNK]"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder + "/base")
BertModel(BertConfig(vocab_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)).save_pretrained(folder + "/base")
first = Transformer(folder + "/base", max_seq_length=16)
SentenceTransformer(modules=[first, Pooling(8, "mean"), Normalize()], device="cpu").save(folder + "/saved")
for step in json.load(open(folder + "/saved/modules.json")):
    print(step["type"])
print("max_seq_length" in json.load(open(folder + "/saved/sentence_bert_config.json")))
PY
cat >"$work/load.py" <<'PY'
import sys
import sentence_transformers
try:
    sentence_transformers.SentenceTransformer(sys.argv[1] + "/saved", device="cpu")
    print(sentence_transformers.__version__, "loads it")
except ImportError as error:
    print(sentence_transformers.__version__, error)
PY
{
  "$work/env/bin/python" "$work/save.py" "$work" 2>"$work/log"
  "$work/env/bin/python" "$work/load.py" "$work" 2>>"$work/log"
  PYTHONPATH="$work/older" "$work/env/bin/python" "$work/load.py" "$work" 2>>"$work/log"
} | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
sentence_transformers.base.modules.transformer.Transformer
sentence_transformers.sentence_transformer.modules.pooling.Pooling
sentence_transformers.base.modules.normalize.Normalize
False
6.2.0 loads it
5.6.1 No module named 'sentence_transformers.base.modules.normalize'
SEEN
