"""The languages that Whisper was trained on, by name."""

from __future__ import annotations

from collections.abc import Collection

# Codes and names as in Whisper's vocabulary and paper; other names of the same languages behind them.
_NAMES = """
af afrikaans, am amharic, ar arabic, as assamese, az azerbaijani, ba bashkir, be belarusian, bg bulgarian,
bn bengali, bo tibetan, br breton, bs bosnian, ca catalan/valencian, cs czech, cy welsh, da danish,
de german, el greek, en english, es spanish/castilian, et estonian, eu basque, fa persian, fi finnish,
fo faroese, fr french, gl galician, gu gujarati, ha hausa, haw hawaiian, he hebrew, hi hindi, hr croatian,
ht haitian creole/haitian, hu hungarian, hy armenian, id indonesian, is icelandic, it italian, ja japanese,
jw javanese, ka georgian, kk kazakh, km khmer, kn kannada, ko korean, la latin,
lb luxembourgish/letzeburgesch, ln lingala, lo lao, lt lithuanian, lv latvian, mg malagasy, mi maori,
mk macedonian, ml malayalam, mn mongolian, mr marathi, ms malay, mt maltese, my myanmar/burmese, ne nepali,
nl dutch/flemish, nn nynorsk, no norwegian, oc occitan, pa punjabi/panjabi, pl polish, ps pashto/pushto,
pt portuguese, ro romanian/moldavian/moldovan, ru russian, sa sanskrit, sd sindhi, si sinhala/sinhalese,
sk slovak, sl slovenian, sn shona, so somali, sq albanian, sr serbian, su sundanese, sv swedish, sw swahili,
ta tamil, te telugu, tg tajik, th thai, tk turkmen, tl tagalog, tr turkish, tt tatar, uk ukrainian, ur urdu,
uz uzbek, vi vietnamese, yi yiddish, yo yoruba, yue cantonese, zh chinese/mandarin
"""


def _read_names() -> dict[str, str]:
    codes = {}
    for entry in " ".join(_NAMES.split()).split(", "):
        code, _, names = entry.partition(" ")
        codes.update(dict.fromkeys(names.split("/"), code))
    return codes


CODES = _read_names()  # by name


def language_code(language: str, known: Collection[str]) -> str | None:
    """The code of a language that a model knows, or None.

    Args:
        language: A code ("en") or an English name ("English"), in capitals or not.
        known: Codes of the languages that the model knows.
    """
    wanted = language.strip().lower()
    return next((code for code in (wanted, CODES.get(wanted)) if code in known), None)
