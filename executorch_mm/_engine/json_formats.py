"""Formats of JSON schemas as patterns, which give what Python's own types and pydantic's can read.

llguidance's `date` has a 29th of February every year and a year 0, its times have a 60th second, its
durations any number of digits, and it does not know the versions of UUIDs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

_YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_BY_FOUR = "(?:0[48]|[2468][048]|[13579][26])"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    f"|02-(?:0[1-9]|1[0-9]|2[0-8]))|(?:[0-9]{{2}}{_BY_FOUR}|{_BY_FOUR}00)-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
_ZONE = "(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_URLS = "uri:"  # of ours: with these schemes
_BASE64 = "(?:[{0}]{{4}})*(?:[{0}]{{2}}==|[{0}]{{3}}=)?"


@functools.lru_cache(maxsize=64)  # names come from clients too
def pattern_of(name: str) -> str | None:
    """The texts that have a format, as a pattern; None for one that has none here."""
    if name.startswith(_URLS):
        return _url_pattern(name.removeprefix(_URLS).split("|"))
    make = _MAKERS.get(name)
    if make is None:
        return None
    return f"^(?:{make})$" if isinstance(make, str) else f"^(?:{make()})$"


def _url_pattern(schemes: list[str]) -> str:
    """URLs with one of these schemes and a host's name."""
    # 63 characters and four labels at the most; no "--": what is behind "xn--" has rules of its own
    part = "[A-Za-z0-9]{1,24}(?:-[A-Za-z0-9]{1,12}){0,3}"
    last = "[A-Za-z][A-Za-z0-9]{0,23}(?:-[A-Za-z0-9]{1,12}){0,3}"  # a digit would begin an address
    host = rf"(?:(?:{part}\.){{0,3}}{last}|(?:{_OCTET}\.){{3}}{_OCTET})"
    path = r"(?:[/?#](?:[A-Za-z0-9._~!$&'()*+,;=:@/?#-]|%[0-9A-Fa-f]{2})*)?"
    scheme = "|".join(map(re.escape, schemes))
    return f"^(?:{scheme})://{host}(?::[1-9][0-9]{{0,3}})?{path}$"


def _duration() -> str:
    """As RFC 3339 has it, with digits that a timedelta holds."""
    count, seconds = "[0-9]{1,6}", "[0-9]{1,9}S"
    minutes = f"{count}M(?:{seconds})?"
    time = f"T(?:{count}H(?:{minutes})?|{minutes}|{seconds})"
    months = f"{count}M(?:{count}D)?"
    return f"P(?:{count}W|(?:{count}Y(?:{months})?|{months}|{count}D)(?:{time})?|{time})"


def _uuid(version: int) -> str:
    digit = "[0-9a-fA-F]"
    return f"{digit}{{8}}-{digit}{{4}}-{version}{digit}{{3}}-[89abAB]{digit}{{3}}-{digit}{{12}}"


def _ipv4_network() -> str:
    """Addresses with a length of which the bits behind it are 0."""
    networks = []
    for length in range(33):
        whole, bits = divmod(length, 8)
        octets = [_OCTET] * whole
        if bits:
            step = 2 ** (8 - bits)
            octets.append(f"(?:{'|'.join(str(value) for value in range(0, 256, step))})")
        networks.append(r"\.".join([*octets, *["0"] * (4 - len(octets))]) + f"/{length}")
    return "|".join(networks)


_MAKERS: dict[str, str | Callable[[], str]] = {
    "date": _DATE,
    "time": f"{_TIME}{_ZONE}",
    "date-time": f"{_DATE}[Tt]{_TIME}{_ZONE}",
    "naive-date-time": f"{_DATE}[Tt]{_TIME}",  # of ours: what RFC 3339 calls a date-time has a zone
    "duration": _duration(),
    **{f"uuid{version}": _uuid(version) for version in (1, 3, 4, 5, 6, 7, 8)},
    "ipv4network": _ipv4_network,
    "ipv4interface": rf"(?:{_OCTET}\.){{3}}{_OCTET}(?:/(?:[12]?[0-9]|3[0-2]))?",
    "base64": _BASE64.format("A-Za-z0-9+/"),
    "base64url": _BASE64.format("A-Za-z0-9_-"),
}
