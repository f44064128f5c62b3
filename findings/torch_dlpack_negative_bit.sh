#!/usr/bin/env bash
# A torch tensor whose sign is applied lazily crosses DLPack with the wrong sign, silently.
#
# Behaviour: the imaginary part of a conjugated complex tensor is a view with torch's "negative" bit set: its memory holds the numbers
# before negation. DLPack has no such bit; torch refuses to export the conjugate bit, but not this one, so numpy.from_dlpack, and
# torch.from_dlpack itself, read the opposite of what the tensor prints.
# Seen with torch 2.13.0 (CPU), numpy 2.4.6, CPython 3.11, Linux x86-64, 2026-11-29.
# Here: such tensors are resolved before they are read (tests/python/inputs, marked torch).
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" && "$work/env/bin/pip" install -q "torch==2.13.0" "numpy==2.4.6"
"$work/env/bin/python" - <<'PY' | tee "$work/seen"
import numpy as np
import torch

spectrum = torch.tensor([1 + 2j, 3 - 4j])
view = spectrum.conj().imag
print("torch", view.tolist(), "negative bit", view.is_neg())
print("numpy.from_dlpack", np.from_dlpack(view).tolist())
print("torch.from_dlpack", torch.from_dlpack(view).tolist())
print("resolved", np.from_dlpack(view.resolve_neg()).tolist())
try:
    np.from_dlpack(spectrum.conj())
except Exception as error:
    print("conjugate bit:", type(error).__name__)
PY
diff "$work/seen" - <<'SEEN'
torch [-2.0, 4.0] negative bit True
numpy.from_dlpack [2.0, -4.0]
torch.from_dlpack [2.0, -4.0]
resolved [-2.0, 4.0]
conjugate bit: BufferError
SEEN
