#!/usr/bin/env bash
# WhisperFeatureExtractor counts the last frame of a clip, which audio fills in part, or drops it: by the kind of padding.
#
# Behaviour: for samples that are no multiple of the hop (160) the attention mask has a frame more with padding="max_length", the
# default, than with padding="longest"; the features of that frame are there in the first case only. generate() hears a clip of up to
# 30 s with the first and a longer one with the second, and its times of words follow the number of frames: the same last words of a
# recording may end elsewhere when it is part of a longer one.
# Seen with transformers 5.24.0, CPython 3.12, Linux x86-64, 2026-11-30.
# Here: frames are counted in the same two ways, so that times of words are equal (executorch_mm/speech/_windows.py).
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" && "$work/env/bin/pip" install -q "transformers==5.24.0"
"$work/env/bin/python" - <<'PY' 2>/dev/null | tee "$work/seen"
import numpy as np
from transformers import WhisperFeatureExtractor

extractor = WhisperFeatureExtractor()
for samples in (16000, 16080, 16159):
    audio = np.sin(np.arange(samples) * 0.1).astype(np.float32)
    counts = []
    for padding in ("max_length", "longest"):
        made = extractor(
            audio, sampling_rate=16000, return_tensors="np", return_attention_mask=True, padding=padding, truncation=False
        )
        counts.append((int(made.attention_mask.sum()), made.input_features.shape[2]))
    print(samples, counts)
PY
diff "$work/seen" - <<'SEEN'
16000 [(100, 3000), (100, 100)]
16080 [(101, 3000), (100, 100)]
16159 [(101, 3000), (100, 100)]
SEEN
