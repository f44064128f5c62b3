#!/usr/bin/env bash
# Of an Ogg file of several streams in a row python-soundfile reads the first and says nothing of the others.
#
# Behaviour: RFC 3533 lets logical streams follow each other in one file, as internet radio and `cat a.ogg b.ogg` make them.
# info() counts the frames of the first stream, read() returns them; neither warns, so half of the audio is lost in silence.
# Seen with soundfile 0.14.0 (libsndfile 1.2.2 in the wheel), numpy 2.4.6, CPython 3.11, Linux x86-64, 2026-11-29.
# Here: chained files are noticed by their pages and refused or read in full (executorch_mm/preprocess/ogg_files.py).
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" && "$work/env/bin/pip" install -q "soundfile==0.14.0" "numpy==2.4.6"
"$work/env/bin/python" -W error - <<'PY' | tee "$work/seen"
import io

import numpy as np
import soundfile as sf

wave = np.sin(np.arange(16000) / 20) / 2
streams = []
for _ in range(2):
    written = io.BytesIO()
    sf.write(written, wave, 16000, format="OGG", subtype="VORBIS")  # each with a serial number of its own
    streams.append(written.getvalue())
chained = b"".join(streams)
print("frames", sf.info(io.BytesIO(chained)).frames, "of", 2 * len(wave))
print("read", len(sf.read(io.BytesIO(chained))[0]))
PY
diff "$work/seen" - <<'SEEN'
frames 16000 of 32000
read 16000
SEEN
