"""URLs that strangers name, judged by their text: scheme, port, length, no user info, no query, no private address.

And those that the operator names, taken at their word.
"""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote, unquote, urlsplit

from validator.protocol.errors import MalformedInput

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL_CHARS = 256

# Everything in the IANA special-purpose registries that is not globally reachable, plus multicast. Listed here since
# the ipaddress module's own opinion differs between Python 3.11 and 3.13.
_NOT_GLOBAL = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "2001::/23",
        "2001:db8::/32",
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
EVERYWHERE: tuple[IPNetwork, ...] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
"""For clients whose URLs the operator names."""
_PATH_SAFE = "/?%:@!$&'()*+,;=~-._[]"
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")


@dataclass(frozen=True, slots=True)
class ParsedUrl:
    """A base URL that keeps the rules.

    ``path`` has no slash at its end; ``host`` is lower-case, an IPv6 address without brackets.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host header: the port is left out where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if (self.scheme, self.port) in (("https", 443), ("http", 80)) else f"{host}:{self.port}"

    def __str__(self) -> str:
        """For logs: scheme and authority, never the path."""
        return f"{self.scheme}://{self.authority}"


def check_url(url: str, *, allow_http: bool, allow_nets: Sequence[IPNetwork] = ()) -> ParsedUrl:
    """Check a base URL from node metadata by its text alone; nothing is looked up.

    A literal address is judged at once. ``allow_http`` is for development networks.

    Raises:
        MalformedInput: field "url", with the broken rule.
    """

    def refuse(reason: str) -> MalformedInput:
        return MalformedInput("url", reason)

    if not isinstance(url, str) or not url:
        raise refuse("empty or not a text")
    if len(url) > MAX_URL_CHARS:
        raise refuse(f"{len(url)} characters exceed the limit of {MAX_URL_CHARS}")
    if any(not "!" <= c <= "~" or c in '\\"<>^`{|}' for c in url):
        raise refuse("a character that no URL has")
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in ("https", "http"):
        raise refuse("neither https nor http")
    if scheme == "http" and not allow_http:
        raise refuse("plain http is for development networks only")
    if "?" in rest or "#" in rest:
        raise refuse("a base URL has no query and no fragment")
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        raise refuse("user info is not allowed")
    host, port = _split_authority(authority, scheme)
    path = (slash + path).rstrip("/")
    if any(part in (".", "..") for part in path.split("/")):
        raise refuse("dots in the path")
    literal = literal_address(host)
    if literal is not None:
        require_allowed(literal, host, allow_nets)
        host = str(literal)
    else:
        _require_name(host)
    return ParsedUrl(scheme, host, port, path)


@dataclass(frozen=True, slots=True)
class OperatorUrl:
    """A URL from the settings: where to connect, path and query as they are written, and its credentials' header."""

    origin: ParsedUrl
    target: str
    headers: tuple[tuple[str, str], ...]
    secrets: tuple[str, ...]
    """What must be in no text: user, password, query, and parts of the path that are long enough to be keys."""


def read_operator_url(url: str) -> OperatorUrl:
    """Take apart a URL that the operator names: any host, any port, user info and query allowed.

    Raises:
        ValueError: not an http or https URL with a host; says nothing of the URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = (parts.hostname or "").encode("idna").decode()
    except (ValueError, UnicodeError) as error:
        raise ValueError("does not parse") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("not an http or https URL with a host")
    target = quote(parts.path, safe=_PATH_SAFE) + (f"?{quote(parts.query, safe=_PATH_SAFE)}" if parts.query else "")
    headers: tuple[tuple[str, str], ...] = ()
    if parts.username or parts.password:
        pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        headers = (("Authorization", f"Basic {b64encode(pair.encode()).decode()}"),)
    named = [text for text in (parts.query, *parts.path.split("/")) if len(text) >= 6]
    secrets = tuple(text for text in (parts.username, parts.password, *named) if text)
    return OperatorUrl(ParsedUrl(parts.scheme, host, port, ""), target, headers, secrets)


def _split_authority(authority: str, scheme: str) -> tuple[str, int]:
    if authority.startswith("["):
        host, bracket, after = authority[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise MalformedInput("url", "brackets do not close around an IPv6 address")
        port_text: str | None = after[1:] if after else None
        if literal_address(host) is None or ":" not in host:
            raise MalformedInput("url", "brackets hold no IPv6 address")
    else:
        host, colon, text = authority.partition(":")
        port_text = text if colon else None
    if port_text is None:
        port = 443 if scheme == "https" else 80
    elif port_text.isascii() and port_text.isdecimal() and len(port_text) <= 5:
        port = int(port_text)
    else:
        raise MalformedInput("url", "port is not a number")
    if port != 443 and not 1024 <= port <= 65535:
        raise MalformedInput("url", f"port {port} is neither 443 nor 1024 to 65535")
    return host.lower(), port


def literal_address(host: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _require_name(host: str) -> None:
    labels = host.removesuffix(".").split(".")
    allowed = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
    if any(not 0 < len(label) <= 63 or set(label) - allowed for label in labels):
        raise MalformedInput("url", "host is neither a name nor an address")
    last = labels[-1]
    if last.isdecimal() or last.startswith("0x"):
        raise MalformedInput("url", "host is a number that is not an address in its usual form")


def is_global_unicast(address: IPAddress) -> bool:
    """Whether the public Internet routes to it; IPv4-mapped, NAT64 and 6to4 forms are judged by what they wrap."""
    inner = unwrap_address(address)
    if isinstance(inner, ipaddress.IPv6Address) and inner not in _GLOBAL_V6:
        return False
    return not any(inner.version == net.version and inner in net for net in _NOT_GLOBAL)


def unwrap_address(address: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv4-mapped, NAT64 (64:ff9b::/96) or 6to4 (2002::/16) address stands for."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address in _SIX_TO_FOUR:
            return ipaddress.IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    return address


def is_allowed_net(address: IPAddress, allow_nets: Sequence[IPNetwork]) -> bool:
    """Whether the operator allowed the (unwrapped) address by name."""
    inner = unwrap_address(address)
    return any(inner.version == net.version and inner in net for net in allow_nets)


def require_allowed(address: IPAddress, host: str, allow_nets: Sequence[IPNetwork]) -> None:
    scoped = isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None
    if scoped or not (is_allowed_net(address, allow_nets) or is_global_unicast(address)):
        raise MalformedInput("url", f"{address} is not a global unicast address", host=host, address=str(address))
