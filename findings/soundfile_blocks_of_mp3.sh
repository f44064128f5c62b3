#!/usr/bin/env bash
# Reading an MP3 of variable bit rate in blocks with python-soundfile gives other samples than reading it whole.
#
# Behaviour: soundfile seeks to where it is after each read of a block; libsndfile then starts the MP3 decoder anew, which has lost the bits
# that a frame borrows from the one before. The beginning of blocks is wrong, by a large part of full scale; there is no
# exception, only the decoder's own lines on standard error.
# Seen with soundfile 0.14.0 (libsndfile 1.2.2 in the wheel), numpy 2.4.6, CPython 3.11, Linux x86-64, 2026-11-28.
# Here: an MP3 is read in one piece (executorch_mm/preprocess/soundfile_reader.py).
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" && "$work/env/bin/pip" install -q "soundfile==0.14.0" "numpy==2.4.6"
"$work/env/bin/python" - <<'PY' | tee "$work/seen"
import io
import numpy as np
import soundfile

rate = 16000
time = np.arange(2 * rate) / rate
samples = (0.4 * np.sin(2 * np.pi * 440 * time) * (1 + np.sin(2 * np.pi * 3 * time))).astype(np.float32)
file = io.BytesIO()
soundfile.write(file, samples, rate, format="MP3", bitrate_mode="VARIABLE")
file.seek(0)
whole, _ = soundfile.read(file, dtype="float32")
file.seek(0)
blocks = np.concatenate(list(soundfile.blocks(file, blocksize=777, dtype="float32")))
print("as many samples:", len(whole) == len(blocks))
print("largest difference above a tenth of full scale:", float(np.abs(whole - blocks).max()) > 0.1)
PY
diff "$work/seen" - <<'SEEN'
as many samples: True
largest difference above a tenth of full scale: True
SEEN
