#!/usr/bin/env bash
# A FLAC stream whose header leaves its length open, which the format allows, cannot be read by python-soundfile in one call.
#
# Behaviour: RFC 9639 lets STREAMINFO say 0 samples for "unknown", as encoders that write to a pipe do. libsndfile then reports
# 9223372036854775807 frames; soundfile.read() asks numpy for that many and fails, and soundfile.blocks() ends in a failed seek, while
# SoundFile.read(n) gives the samples as long as n are there.
# Seen with soundfile 0.14.0 (libsndfile 1.2.2 in the wheel), numpy 2.4.6, CPython 3.11, Linux x86-64, 2026-11-29.
# Here: lengths of 0 are read in blocks up to the end (executorch_mm/preprocess, extra audio).
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" && "$work/env/bin/pip" install -q "soundfile==0.14.0" "numpy==2.4.6"
"$work/env/bin/python" - <<'PY' | tee "$work/seen"
import io

import numpy as np
import soundfile as sf

written = io.BytesIO()
sf.write(written, np.sin(np.arange(16000) / 20) / 2, 16000, format="FLAC")
stream = bytearray(written.getvalue())
stream[21] &= 0xF0  # the 36 bits of the number of samples
stream[22:26] = bytes(4)
stream = bytes(stream)
print("frames", sf.info(io.BytesIO(stream)).frames)
for name, read in (
    ("read", lambda: sf.read(io.BytesIO(stream))),
    ("blocks", lambda: list(sf.blocks(io.BytesIO(stream), 4000))),
):
    try:
        read()
    except Exception as error:
        print(name, type(error).__name__)
with sf.SoundFile(io.BytesIO(stream)) as file:
    print("SoundFile.read(4000)", len(file.read(4000)))
PY
diff "$work/seen" - <<'SEEN'
frames 9223372036854775807
read ValueError
blocks LibsndfileError
SoundFile.read(4000) 4000
SEEN
