#!/usr/bin/env bash
# faster-whisper cannot open a file with the PyAV that pip installs beside it.
#
# Behaviour: faster-whisper asks for av>=11 and passes `metadata_errors` to av.open(); PyAV 19 has no such parameter, so each path or
# file object ends in a TypeError before anything is decoded. Samples in an array are heard. av 18.1.0 opens files.
# Seen with faster-whisper 1.2.1 and av 19.0.2 (for CPython 3.12 and newer; older ones get 18.1.0), CPython 3.12, Linux x86-64, 2026-11-30.
# Here: benchmarks hand faster-whisper samples (benchmarks/speech_worker.py).
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3.12 -m venv "$work/env"
for av in 18.1.0 19.0.2; do
  "$work/env/bin/pip" install -q "faster-whisper==1.2.1" "av==$av"
  "$work/env/bin/python" - "$work/tone.wav" <<'PY'
import sys
import wave
import av
import numpy as np
from faster_whisper.audio import decode_audio

with wave.open(sys.argv[1], "wb") as file:
    file.setparams((1, 2, 16000, 0, "NONE", ""))
    file.writeframes((8000 * np.sin(np.arange(16000) * 0.1)).astype(np.int16).tobytes())
try:
    print(av.__version__, decode_audio(sys.argv[1]).shape)
except TypeError as error:
    print(av.__version__, f"{type(error).__name__}: {error}")
PY
done | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
18.1.0 (16000,)
19.0.2 TypeError: open() got an unexpected keyword argument 'metadata_errors'
SEEN
