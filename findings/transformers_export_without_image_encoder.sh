#!/usr/bin/env bash
# transformers' folder export of a vision-language model holds no image encoder and no projector, and says nothing of it.
#
# Behaviour: ExecutorchExporter.export_for_generation records the forward passes of `generate`. For models with the flag
# _supports_mm_encoder_outputs `generate` runs the image encoder before the forward pass that is recorded, so that only the
# language model, the head and the decoder are written: nothing in the folder can read pixels. With the flag off both are there.
# Seen with transformers 5.24.0, executorch 1.5.1, torch 2.13.0 (CPU), CPython 3.11, Linux x86-64, 2026-11-29.
# Here: loading names the component that is missing; docs/compatibility.md says what to put before the export.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" && pip=("$work/env/bin/pip" install -q)
"${pip[@]}" "torch==2.13.0"
"${pip[@]}" "transformers==5.24.0" "executorch==1.5.1" "torch==2.13.0"
cat >"$work/export.py" <<'PY'
import json, sys, tempfile
from pathlib import Path
import torch
import transformers
from transformers.exporters import ExecutorchConfig, ExecutorchExporter

text = transformers.LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
                                num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
vision = transformers.CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                                       image_size=16, patch_size=8)
torch.manual_seed(0)
model = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_id=60,
                                                   vision_feature_select_strategy="default", vision_feature_layer=-2)).eval()
if sys.argv[1] == "off":
    type(model)._supports_mm_encoder_outputs = lambda _: False
ids = torch.tensor([[1, 5, 60, 60, 60, 60, 9, 4]])
inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.zeros(1, 3, 16, 16)}
caching = transformers.GenerationConfig(cache_implementation="static", max_cache_len=48, pad_token_id=0, eos_token_id=2)
exported = ExecutorchExporter().export_for_generation(model, inputs, ExecutorchConfig(dynamic=True), generation_config=caching,
                                                      multi_token_decode=True)
with tempfile.TemporaryDirectory() as folder:
    exported.save_pretrained(folder)
    print("flag", sys.argv[1] + ":", *sorted(json.loads((Path(folder) / "export.json").read_text())["components"]))
PY
for flag in on off; do "$work/env/bin/python" "$work/export.py" "$flag" 2>>"$work/log"; done | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
flag on: decode language_model lm_head
flag off: decode image_encoder language_model lm_head multi_modal_projector
SEEN
