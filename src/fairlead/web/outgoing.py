"""Requests that this server makes to addresses that people typed: only to where the address may lead, and nowhere else on the way.

    url -> parts are checked -> the name is looked up ONCE -> every address found is checked -> connect to that address (TLS by the name)

Refused: other schemes than https, names and passwords in the address, numbers that only some programs read as addresses (2130706433,
0177.0.0.1, 0x7f.1), and every address that is not public, also when it hides in IPv6 (mapped, 6to4, Teredo, NAT64). Since the connection goes to
the address that was checked, a name that answers differently a moment later changes nothing. Redirects are not followed, proxies not used,
answers cut at 64 KB and 10 seconds.
"""

import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fairlead.web.errors import Refused

TIMEOUT_S = 10.0
MAX_ANSWER = 65_536
"""Bytes of an answer that are read."""
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[..., list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A checked place: `address` is where the connection goes, `host` what TLS and the request name."""

    scheme: str
    host: str
    port: int
    path: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    """Its beginning."""


def check_target(url: str, *, allow_local: bool = False, lookup: Lookup = socket.getaddrinfo) -> Target:
    """Check an address and look its name up, once.

    Args:
        allow_local: loopback is allowed too, there also without TLS; nothing else is.
        lookup: finds addresses of a name.
    Raises:
        Refused: it must not be called; the message says why.
    """
    scheme, host, port, path = _parts(url)
    found = _addresses(host, port, lookup)
    is_local = allow_local and all(address.is_loopback for address in found)
    if not is_local and not all(map(is_public, found)):
        raise _refused(f"{host} is an address inside a network. Name a server that is open to the internet.")
    if scheme != "https" and not is_local:
        raise _refused("The address has no TLS. Begin it with https://.")
    return Target(scheme=scheme, host=host, port=port, path=path, address=str(found[0]))


def _refused(message: str) -> Refused:
    return Refused(422, "address", message)


def _parts(url: str) -> tuple[str, str, int, str]:
    if len(url) > 2000 or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise _refused("The address holds characters that addresses do not have. Write it as https://NAME/PATH.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused("The address is no address. Write it as https://NAME/PATH.") from error
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise _refused("The address is not of the web. Write it as https://NAME/PATH.")
    if "@" in parts.netloc:
        raise _refused("The address holds a name or password. Leave it out; requests are signed.")
    default = 443 if parts.scheme == "https" else 80
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, parts.hostname, default if port is None else port, path


def _addresses(host: str, port: int, lookup: Lookup) -> list[Address]:
    """The address itself where it is one in the usual form, else what the name leads to."""
    literal = _literal(host)
    if literal is not None:
        return [literal]
    try:
        rows = lookup(host, port, type=socket.SOCK_STREAM)
        found = [ipaddress.ip_address(str(row[4][0])) for row in rows]
    except (OSError, ValueError, UnicodeError) as error:
        raise _refused(f"{host} is not found. Check the name.") from error
    if not found:
        raise _refused(f"{host} is not found. Check the name.")
    return found


def _literal(host: str) -> Address | None:
    if ":" in host:
        try:
            return ipaddress.IPv6Address(host.replace("%", " "))  # a zone names a network card of this machine
        except ValueError as error:
            raise _refused("The address is no address. Write it as https://NAME/PATH.") from error
    if not _NAME.fullmatch(host.rstrip(".")):
        raise _refused("The address is no address. Write it as https://NAME/PATH.")
    if not _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return None
    try:
        return ipaddress.IPv4Address(host)
    except ValueError as error:
        raise _refused(f"{host} is a number that only some programs read as an address. Write a name.") from error


def is_public(address: Address) -> bool:
    """Is it on the internet, whatever it is wrapped in?"""
    if isinstance(address, ipaddress.IPv6Address):
        inner: list[Address | None] = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64 or int(address) >> 32 == 0:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if any(each is not None and not is_public(each) for each in inner):
            return False
        if address.ipv4_mapped is not None:
            return True
        if address.is_site_local:
            return False
    is_special = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    return address.is_global and not is_special and not address.is_link_local and not address.is_private


def post(
    target: Target, body: bytes, headers: Mapping[str, str], *, timeout_s: float = TIMEOUT_S, context: ssl.SSLContext | None = None,
    connect: Callable[..., socket.socket] = socket.create_connection,
) -> Answer:  # fmt: skip
    """Send to the checked address; nothing that comes back leads anywhere else.

    Args:
        context: certificates that are trusted; the system's when None.
    Raises:
        OSError: no connection, no proper answer, or none in time.
    """
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    connection = kind(target.host, target.port, timeout=timeout_s)
    line = connect((target.address, target.port), timeout=timeout_s)
    try:
        if target.scheme == "https":
            line = (context or ssl.create_default_context()).wrap_socket(line, server_hostname=target.host)
    except BaseException:
        line.close()
        raise
    stop = threading.Timer(timeout_s, _cut, [line])  # the timeout of a socket begins anew with every byte
    stop.daemon = True
    stop.start()
    try:
        connection.sock = line
        connection.request("POST", target.path, body=body, headers={**headers, "Connection": "close"})
        answer = connection.getresponse()
        return Answer(status=answer.status, body=answer.read(MAX_ANSWER))
    except http.client.HTTPException as error:
        raise OSError(f"no proper answer ({type(error).__name__})") from error
    finally:
        stop.cancel()
        line.close()


def _cut(line: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed already
        line.shutdown(socket.SHUT_RDWR)
