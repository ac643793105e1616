"""How brokers want to be asked, and what is known of each: its dialect, and until when it wants to be left alone.

Every generation of brokers has a path and a form of password of its own, and none says which. Rule: whatever a broker
answers in one dialect but its messages, or what it says of the asker once it knows who asks, is a matter of the
dialect until all others were tried; only then is it the broker's failure. What a broker understands is remembered for
an hour, since it may be upgraded in place: then, and as soon as it refuses, all dialects are tried anew, the newest
first. A broker that refuses them all is asked in one only for a while.

A broker that says 429 or 503 is asked by nobody before the time it names, or a growing and random pause.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random

from validator.codec.message import digest_of_payload
from validator.codec.secp256k1 import SigningKey
from validator.model import SignatureType

REMEMBERED_S = 3600.0
SEARCH_AGAIN_S = 60.0
MAX_BROKERS = 1000
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 60.0
MAX_NAMED_PAUSE_S = 600.0
"""A broker may ask for so much; a longer time would be a way to be forgotten."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Path prefix, and password as 0x hex or base64 (reference: Log Store broker layer, HTTP API)."""

    prefix: str
    hex_password: bool


NEWEST = Dialect("stores", False)
DIALECTS = (NEWEST, Dialect("stores", True), Dialect("streams", True), Dialect("streams", False))
"""Since April 2024; January to April 2024; 2023; and the one that is left. Newest first."""


@dataclass(slots=True)
class _Known:
    """What is known of one broker. Times are monotonic seconds."""

    dialect: Dialect | None = None
    until_s: float = 0.0
    confirmed: bool = False
    """It has answered in this dialect; else it refused all, and this is the one to ask for the time being."""
    quiet_until_s: float = 0.0
    strikes: int = 0


class Brokers:
    """What is known of all brokers, by URL. Thread-safe."""

    def __init__(
        self, *, remembered_s: float = REMEMBERED_S, chance: Random | None = None, clock: Callable[[], float]
    ) -> None:
        self._remembered_s = remembered_s
        self._chance = chance or Random()
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}

    def dialects_of(self, url: str) -> tuple[Sequence[Dialect], bool]:
        """In which dialects to ask, one after the other, and whether the first is known to be understood."""
        with self._lock:
            known = self._of(url)
            if known.dialect is None or self._clock() >= known.until_s:
                return DIALECTS, False
            if not known.confirmed:
                return (known.dialect,), False
            return (known.dialect, *(d for d in DIALECTS if d != known.dialect)), True

    def understood(self, url: str, dialect: Dialect) -> None:
        """The broker answered in this dialect."""
        with self._lock:
            known = self._of(url)
            known.strikes = 0
            now = self._clock()
            if known.dialect != dialect or not known.confirmed or now >= known.until_s:
                known.dialect, known.confirmed, known.until_s = dialect, True, now + self._remembered_s

    def refused(self, url: str, dialect: Dialect) -> None:
        """The broker refused every dialect, and this one with the reason that says most."""
        with self._lock:
            known = self._of(url)
            known.dialect, known.confirmed = dialect, False
            known.until_s = self._clock() + min(SEARCH_AGAIN_S, self._remembered_s)

    def doubt(self, url: str) -> None:
        """An answer in the known dialect was none: try all again with the next request."""
        with self._lock:
            self._of(url).until_s = 0.0

    def throttled(self, url: str, named_s: float | None) -> None:
        """The broker wants to be left alone, for ``named_s`` seconds if it said so."""
        with self._lock:
            known = self._of(url)
            known.strikes += 1
            longest = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(known.strikes, 16))
            pause = self._chance.uniform(longest / 2, longest)
            if named_s is not None:
                pause = min(named_s, MAX_NAMED_PAUSE_S) + self._chance.uniform(0, FIRST_PAUSE_S)
            known.quiet_until_s = max(known.quiet_until_s, self._clock() + pause)

    def quiet_until_s(self, url: str) -> float:
        """Before then nobody asks. Monotonic seconds."""
        with self._lock:
            return self._of(url).quiet_until_s

    def _of(self, url: str) -> _Known:
        known = self._known.get(url)
        if known is None:
            if len(self._known) >= MAX_BROKERS:
                del self._known[next(iter(self._known))]
            known = self._known[url] = _Known()
        return known


def read_retry_after(text: str, now_s: float | None = None) -> float | None:
    """Seconds that a Retry-After header names, as a number or a date (RFC 9110, 10.2.3); None if it names none."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:18])
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    now = datetime.fromtimestamp(time.time() if now_s is None else now_s, UTC)
    return max(0.0, (date - now).total_seconds())


def make_logins(key: SigningKey) -> dict[bool, str]:
    """Authorization headers, by whether the password is hex: lower-case address, and the EIP-191 signature over it."""
    user = "0x" + key.address.hex()
    signature = key.sign(digest_of_payload(SignatureType.ECDSA_SECP256K1_EVM, user.encode()))
    passwords = {True: "0x" + signature.hex(), False: base64.b64encode(signature).decode()}
    return {
        hex_password: "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        for hex_password, password in passwords.items()
    }
