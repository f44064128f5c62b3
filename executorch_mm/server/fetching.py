"""Images and audio that messages name by URL: from the domains that are allowed, and from nowhere else."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from urllib.parse import SplitResult, urlsplit

from executorch_mm.errors import InputError, shown

_SECONDS = 10.0  # for a file
_PART_BYTES = 1 << 16
_PORTS = {"http": 80, "https": 443}
# Addresses of IPv6 behind which one of IPv4 may stand, public or not.
_CARRIERS = [
    ipaddress.ip_network(each)
    for each in ("::/96", "::ffff:0:0/96", "64:ff9b::/32", "2002::/16", "2001::/32")
]


def is_public(address: str) -> bool:
    """Whether an address is one of the whole internet: no network of ours, no machine of ours.

    Args:
        address: Of IPv4 or IPv6, in digits.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    is_carrier = found.version == 6 and any(found in network for network in _CARRIERS)
    return found.is_global and not found.is_multicast and not is_carrier


class Fetcher:
    """Fetches files by URL: `ChatOptions.fetch`.

    The name is looked up once, all its addresses must be public, and the connection goes to the one that was
    looked at. Redirects are not followed, proxies of the environment are not used.

    Args:
        domains: Names of hosts, with ":port" where it is none of 80 and 443.
        max_bytes: Of a file.
        may_connect: Says of an address whether it may be asked; `is_public`, but in tests.
    """

    def __init__(
        self, domains: Sequence[str], max_bytes: int, may_connect: Callable[[str], bool] = is_public
    ) -> None:
        self._domains = {domain.lower() for domain in domains}
        self._max_bytes = max_bytes
        self._may_connect = may_connect

    def __call__(self, url: str) -> bytes:
        """The file behind a URL.

        Args:
            url: The URL.

        Raises:
            InputError: It is not allowed, cannot be had, or is too large.
        """
        parts, port = self._checked(url)
        host = parts.hostname or ""
        try:
            address = self._address(host, port, url)
            with socket.create_connection((address, port), timeout=_SECONDS) as plain:
                if parts.scheme == "http":
                    return self._read(plain, parts, url)
                with ssl.create_default_context().wrap_socket(plain, server_hostname=host) as secure:
                    return self._read(secure, parts, url)
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise InputError(f"{shown(url)}: cannot be fetched") from error

    def _checked(self, url: str) -> tuple[SplitResult, int]:
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            raise InputError(f"{shown(url)}: expected a URL") from None
        host = (parts.hostname or "").lower()
        name = host if port == _PORTS.get(parts.scheme) else f"{host}:{port}"
        is_plain = url.isascii() and url.isprintable() and " " not in url and "@" not in parts.netloc
        if not is_plain or parts.scheme not in _PORTS or name not in self._domains:
            raise InputError(f"{shown(url)}: expected a URL of a domain that this server may ask")
        return parts, port

    def _address(self, host: str, port: int, url: str) -> str:
        found = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        if not found or not all(map(self._may_connect, found)):
            raise InputError(f"{shown(url)}: expected a public address")
        return found[0]

    def _read(self, connected: socket.socket, parts: SplitResult, url: str) -> bytes:
        deadline = time.monotonic() + _SECONDS
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        request = f"GET {target} HTTP/1.0\r\nHost: {parts.netloc}\r\nAccept-Encoding: identity\r\n\r\n"
        connected.sendall(request.encode("ascii"))
        response = http.client.HTTPResponse(connected, method="GET")
        response.begin()
        if response.status != 200:
            expected = "expected status 200 (redirects are not followed)"
            raise InputError(f"{shown(url)}: {expected}, got {response.status}")
        data = bytearray()
        while part := response.read1(_PART_BYTES):
            data += part
            if len(data) > self._max_bytes:
                raise InputError(f"{shown(url)}: expected at most {self._max_bytes} bytes")
            if time.monotonic() > deadline:
                raise InputError(f"{shown(url)}: expected within {_SECONDS:.0f} s")
        return bytes(data)
