"""Synthesised speech: what is said, by which voices, and espeak-ng through its C library.

Needs the system's espeak-ng (Debian: apt-get install espeak-ng; the data here come from 1.51).
"""

from __future__ import annotations

import ctypes
import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

Samples = npt.NDArray[np.float32]

RATE = 16000
LENGTH = 4 * RATE
"""Samples that the audio encoder takes."""

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COMMANDS = ("yes", "no", "stop", "go", "up", "down", "left", "right", "on", "off")
LONGEST = 3.7
"""Seconds; longer utterances are left out."""

ACCENTS = ("en", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-us-nyc")
UNSEEN_ACCENTS = ("en-029", "en-gb-x-gbcwmd")
UNSEEN_VARIANTS = (
    "f4", "m2", "m7", "klatt3", "Andrea", "Lee", "Mario", "belinda", "edward", "edward2", "gustave",
    "john", "marcelo", "norbert", "pablo", "shelby", "steph", "steph2", "steph3", "victor",
)  # fmt: skip
"""Voice variants that training never hears, besides the unseen accents."""

PHONEMES = {
    "zero": "z'i@roU", "one": "w'Vn", "two": "t'u:", "three": "Tr'i:", "four": "f'O:", "five": "f'aIv",
    "six": "s'Iks", "seven": "s'Ev@n", "eight": "'eIt", "nine": "n'aIn", "yes": "j'Es", "no": "n'oU",
    "stop": "st'0p", "go": "g'oU", "up": "'Vp", "down": "d'aUn", "left": "l'Eft", "right": "r'aIt",
    "on": "'0n", "off": "'0f",
}  # fmt: skip
SHIFTS = {
    "aI": ("OI", "A:", "eI"), "eI": ("E", "aI", "e@"), "oU": ("O:", "aU", "0"), "aU": ("A:", "oU"),
    "i@": ("e@", "i:", "I"), "i:": ("I", "eI"), "u:": ("U",), "O:": ("0", "oU", "U@"), "E": ("I", "eI", "a"),
    "I": ("i:", "E", "@"), "V": ("U", "0", "a"), "0": ("O:", "A:", "V"), "T": ("t", "f", "s"),
}  # fmt: skip
"""Sounds of English words, in espeak-ng's letters, and what they may become in made-up accents."""

FIRST_BENT_SEED = 150_000
"""Training clips from this seed on are spoken in made-up accents."""

FIRST_UNSEEN_SEED = 900_000_000
"""Clips from this seed on are spoken by voices that training never uses."""

_VARIANTS = Path("/usr/lib/x86_64-linux-gnu/espeak-ng-data/voices/!v")


@dataclass(frozen=True)
class Utterance:
    """What a clip is made of; all of it follows from its seed.

    Attributes:
        words: What is said, and the right answer.
        text: The same, as it is given to the synthesiser: commas make pauses.
        accent: espeak-ng's voice.
        variant: espeak-ng's voice variant, "" for none.
        speed: Words per minute.
        pitch: 0 to 99.
        pitch_range: 0 to 99; 50 is the voice's own.
        gap: Pause between words, in units of 10 ms.
        stretch: The clip is played this much slower, with lower pitch and formants.
    """

    words: str
    text: str
    accent: str
    variant: str
    speed: int
    pitch: int
    pitch_range: int
    gap: int
    stretch: float


def variants(folder: Path = _VARIANTS) -> list[str]:
    """The voice variants of the installed espeak-ng that training may use."""
    names = sorted(p.name for p in folder.iterdir() if " " not in p.name)
    missing = set(UNSEEN_VARIANTS) - set(names)
    if missing:
        raise SystemExit(f"espeak-ng has no variants {sorted(missing)}")
    return [name for name in names if name not in UNSEEN_VARIANTS]


def say_what(rng: random.Random) -> tuple[str, str]:
    """Words to say, and the text that says them: one command in four, else 1 to 5 digits."""
    if rng.random() < 0.25:
        words = [rng.choice(COMMANDS)]
    else:
        count = rng.choices((1, 2, 3, 4, 5), (3, 2, 2, 2, 3))[0]
        words = [rng.choice(DIGITS) for _ in range(count)]
    text = "".join(word + rng.choice((" ", " ", ", ")) for word in words[:-1]) + words[-1]
    return " ".join(words), text + rng.choice(("", "", ".", "!", "?"))


def bend(text: str, rng: random.Random) -> str:
    """The text as phonemes of a made-up accent, in which some sounds have become others throughout."""
    accent = {sound: rng.choice(others) for sound, others in SHIFTS.items() if rng.random() < 0.4}
    sounds = re.compile("|".join(sorted(map(re.escape, SHIFTS), key=len, reverse=True)))

    def spell(word: re.Match[str]) -> str:
        return "[[" + sounds.sub(lambda m: accent.get(m[0], m[0]), PHONEMES[word[0]]) + "]]"

    return re.sub("[a-z]+", spell, text)


def utterance(seed: int, known: list[str]) -> Utterance:
    """The utterance of a seed.

    Args:
        seed: Below `FIRST_UNSEEN_SEED` for training; from there on one half has a known accent and an unseen
            variant, a quarter both unseen, a quarter an unseen accent and a known variant.
        known: The variants of training.
    """
    rng = random.Random(f"speech {seed}")
    words, text = say_what(rng)
    if FIRST_BENT_SEED <= seed < FIRST_UNSEEN_SEED:
        text = bend(text, rng)
    kind = seed % 4 if seed >= FIRST_UNSEEN_SEED else -1
    accent = rng.choice(UNSEEN_ACCENTS if kind in (2, 3) else ACCENTS)
    variant = rng.choice(UNSEEN_VARIANTS if kind in (0, 1, 2) else ["", "", *known])
    return Utterance(
        words, text, accent, variant,
        speed=rng.randint(120, 220), pitch=rng.randint(20, 80), pitch_range=rng.randint(20, 80),
        gap=rng.choice((0, 0, 0, 2, 5, 8)), stretch=1.0 if kind >= 0 else rng.uniform(0.9, 1.1),
    )  # fmt: skip


class Espeak:
    """One synthesiser per process: the library keeps global state."""

    _RATE, _PITCH, _RANGE, _GAP = 1, 3, 4, 7
    _UTF8, _PHONEMES = 0x1, 0x100

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libespeak-ng.so.1")
        self.rate = self._lib.espeak_Initialize(2, 0, None, 0)  # 2: synchronous, to the callback
        if self.rate <= 0:
            raise SystemExit("espeak-ng does not start")
        self._parts: list[npt.NDArray[np.int16]] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._receive)
        self._lib.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: object, count: int, _events: object) -> int:
        if samples and count > 0:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def speak(self, what: Utterance) -> Samples:
        """float32 samples in -1..1 at `self.rate`."""
        name = f"{what.accent}+{what.variant}" if what.variant else what.accent
        if self._lib.espeak_SetVoiceByName(name.encode()) != 0:
            raise SystemExit(f"espeak-ng has no voice {name}")
        parameters = (self._RATE, what.speed), (self._PITCH, what.pitch), (self._RANGE, what.pitch_range)
        for parameter, value in (*parameters, (self._GAP, what.gap)):
            self._lib.espeak_SetParameter(parameter, value, 0)
        self._parts = []
        text = what.text.encode()
        self._lib.espeak_Synth(
            text, ctypes.c_size_t(len(text) + 1), 0, 1, 0, self._UTF8 | self._PHONEMES, None, None
        )
        if not self._parts:
            return np.zeros(0, np.float32)
        return np.concatenate(self._parts).astype(np.float32) / 32768

    def clip(self, what: Utterance) -> Samples:
        """Samples at `RATE`, without the silence around them."""
        samples = self.speak(what)
        loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max(initial=0))
        if not len(loud):
            raise SystemExit(f"silence: {what}")
        edge = self.rate // 100
        samples = samples[max(0, loud[0] - edge) : loud[-1] + edge]
        wide = resample_poly(samples, RATE // 50, round(self.rate / what.stretch / 50))
        return np.clip(wide, -1, 1).astype(np.float32)


def placed(clip: Samples, rng: np.random.Generator) -> Samples:
    """A clean recording of a clip, as the tests and evaluations use it: somewhere in 4 s, faint noise."""
    out = np.zeros(LENGTH, np.float32)
    start = int(rng.integers(LENGTH - len(clip) + 1))
    out[start : start + len(clip)] = clip / np.abs(clip).max() * rng.uniform(0.1, 0.9)
    return out + rng.standard_normal(LENGTH).astype(np.float32) * np.float32(10 ** rng.uniform(-4, -2.5))
