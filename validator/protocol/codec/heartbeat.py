"""Heartbeats: once a second a broker says on the system stream where it is, and what it holds.

A heartbeat is a message of the system stream. Its content is the JSON text

    [2,9,["<url>",…],<bundle>,["<from>","<until>","<count>","<root>"],["<from>","<until>","<count>","<root>"]]

with ``<bundle>`` null or ["<number>","<root>"]: the newest bundle that the broker has verified. The two totals are
over its *closed slices* (protocol.slices): of the last minutes, and of all that it has kept before those. The
publisher is the broker and the message's timestamp the time of speaking, so the message's own signature covers all that
is claimed, and no second one is needed inside: validators archive it like any message, and two heartbeats are evidence
against their broker. Exactly this form counts, without white space or escapes, numbers as decimal strings; any other
content is an ordinary message. Vectors: tests/vectors/slices.json.

Decided against: the sums of each slice, or of each partition, in every heartbeat: 1 000 partitions are 60 kB a second,
from every broker to every other and on into permanent storage. Totals differ when anything does; who sees that asks for
the rest (net.mutual).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.model import Address, ContentType, EncryptionType, Message, MessageType, Root
from validator.protocol.slices import SLICE_MS, Sum, check_range

SYSTEM_VERSION = 2
HEARTBEAT_TYPE = 9
MAX_URLS = 4
MAX_URL_CHARS = 256
MAX_HEARTBEAT_BYTES = 2048
"""Longer contents are no heartbeats; four URLs, a bundle and two totals take less."""
RECENT_MS = 300_000
"""The recent total covers at least so much, if so much is kept."""

_URL = re.compile(r"https?://[!#-\[\]-~]{1,248}", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_ROOT = re.compile(r"0x[0-9a-f]{64}", re.ASCII)

_Total = tuple[str, str, str, str]
_Form = tuple[int, int, list[str], tuple[str, str] | None, _Total, _Total]
_decode = msgspec.json.Decoder(_Form).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a broker claims. ``recent`` begins where ``kept`` ends, and ends with the newest closed slice."""

    urls: tuple[str, ...]
    bundle: tuple[int, Root] | None
    recent: Sum
    kept: Sum

    def __post_init__(self) -> None:
        try:
            _check(self)
        except MalformedInput as error:
            raise InvariantError(f"no heartbeat: {error}") from error


def is_fit_url(url: str) -> bool:
    """Whether a heartbeat can name it: metadata may hold what no client would ask."""
    return _URL.fullmatch(url) is not None


def write_heartbeat(heartbeat: Heartbeat) -> bytes:
    """Content of the system message."""
    h = heartbeat
    bundle = None if h.bundle is None else [str(h.bundle[0]), f"0x{h.bundle[1].hex()}"]
    return _encode([SYSTEM_VERSION, HEARTBEAT_TYPE, h.urls, bundle, _write_total(h.recent), _write_total(h.kept)])


def parse_heartbeat(content: bytes) -> Heartbeat | None:
    """The heartbeat of this content; None if it has another form."""
    if len(content) > MAX_HEARTBEAT_BYTES or not content.isascii():
        return None
    try:
        version, kind, urls, bundle, recent, kept = _decode(content)
        if (version, kind) != (SYSTEM_VERSION, HEARTBEAT_TYPE):
            return None
        heartbeat = Heartbeat(tuple(urls), _read_bundle(bundle), _read_total(recent), _read_total(kept))
    except (msgspec.DecodeError, MalformedInput, InvariantError, RecursionError):
        return None
    return heartbeat if write_heartbeat(heartbeat) == content else None


def heartbeat_of(message: Message) -> tuple[Address, Heartbeat] | None:
    """Broker and heartbeat that a message of the system stream carries; else None.

    The caller knows that the message is of the system stream, validly signed, and of a publisher that may.
    """
    if (
        message.message_type is not MessageType.MESSAGE
        or message.content_type is not ContentType.JSON
        or message.encryption_type is not EncryptionType.NONE
        or len(message.publisher_id) != 20
    ):
        return None
    heartbeat = parse_heartbeat(message.content)
    return None if heartbeat is None else (Address(message.publisher_id), heartbeat)


def _check(h: Heartbeat) -> None:
    for total in (h.recent, h.kept):
        check_range(total.start_ms, total.end_ms)
        if not 0 <= total.count < 1 << 63:
            raise MalformedInput("heartbeat.count", "not below 2^63")
    if h.kept.end_ms != h.recent.start_ms:
        raise MalformedInput("heartbeat.kept", "does not end where the recent slices begin")
    if h.recent.length_ms > 2 * RECENT_MS + SLICE_MS:
        raise MalformedInput("heartbeat.recent", "longer than the last minutes")
    if len(h.urls) > MAX_URLS or not all(map(is_fit_url, h.urls)):
        raise MalformedInput("heartbeat.urls", f"not at most {MAX_URLS} URLs of at most {MAX_URL_CHARS} characters")
    if h.bundle is not None and not 0 <= h.bundle[0] < 1 << 63:
        raise MalformedInput("heartbeat.bundle", "not below 2^63")


def _write_total(total: Sum) -> _Total:
    return (str(total.start_ms), str(total.end_ms), str(total.count), f"0x{total.root.hex()}")


def _read_total(form: _Total) -> Sum:
    from_ms, until_ms, count = (_read_number(text) for text in form[:3])
    if until_ms < from_ms:
        raise MalformedInput("heartbeat.total", "ends before it begins")
    return Sum(from_ms, until_ms - from_ms, count, _read_root(form[3]))


def _read_bundle(form: tuple[str, str] | None) -> tuple[int, Root] | None:
    return None if form is None else (_read_number(form[0]), _read_root(form[1]))


def _read_number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise MalformedInput("heartbeat.number", "not decimal")
    return int(text)


def _read_root(text: str) -> Root:
    if not _ROOT.fullmatch(text):
        raise MalformedInput("heartbeat.root", "not 0x and 64 lower-case hex digits")
    return Root(bytes.fromhex(text[2:]))
