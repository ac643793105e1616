"""How brokers want to be asked, and what is known of each: its dialect, and until when it wants to be left alone.

Every generation of brokers has a path and a form of password of its own, and none says which. Rule: whatever a broker
answers in one dialect but its messages, or what it says of the asker once it knows who asks, is a matter of the
dialect until all others were tried; only then is it the broker's failure. What a broker understands is remembered for
an hour, since it may be upgraded in place: then, and as soon as it refuses, all dialects are tried anew, the newest
first. A broker that refuses them all is asked in one only for a while.

A broker that says 429 or 503 is asked by nobody before the time it names, or a growing and random pause
(``validator.net.http.pacing``).
"""

from __future__ import annotations

import base64
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from validator.net.http.pacing import Pace
from validator.protocol.codec.login import Login, sign_login, write_login
from validator.protocol.codec.payload import digest_of_payload
from validator.protocol.codec.secp256k1 import Signer, SigningKey
from validator.protocol.codec.statement import SigningContext
from validator.protocol.model import Address, SignatureType

REMEMBERED_S = 3600.0
SEARCH_AGAIN_S = 60.0
MAX_BROKERS = 1000


@dataclass(frozen=True, slots=True)
class Dialect:
    """Path prefix, and password as 0x hex or base64 (reference: Log Store broker layer, HTTP API)."""

    prefix: str
    hex_password: bool


V1 = Dialect("v1", False)
"""Of the brokers of today: a login token, frames of canonical messages, and a signed trailer, which proves the end."""
NEWEST = Dialect("stores", False)
DIALECTS = (NEWEST, Dialect("stores", True), Dialect("streams", True), Dialect("streams", False))
"""Before: since April 2024; January to April 2024; 2023; and the one that is left. Newest first."""
TOKEN_LIFE_MS = 1_800_000


@dataclass(slots=True)
class _Known:
    """What is known of one broker. Times are monotonic seconds."""

    pace: Pace
    dialect: Dialect | None = None
    until_s: float = 0.0
    confirmed: bool = False
    """It has answered in this dialect; else it refused all, and this is the one to ask for the time being."""


class Brokers:
    """What is known of all brokers, by URL. Thread-safe."""

    def __init__(
        self,
        *,
        remembered_s: float = REMEMBERED_S,
        clock: Callable[[], float] = time.monotonic,
        dialects: Sequence[Dialect] = DIALECTS,
    ) -> None:
        """``dialects``: those that are tried, in this order."""
        self._dialects = tuple(dialects)
        self._remembered_s = remembered_s
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}

    def dialects_of(self, url: str) -> tuple[Sequence[Dialect], bool]:
        """In which dialects to ask, one after the other, and whether the first is known to be understood."""
        with self._lock:
            known = self._of(url)
            if known.dialect is None or self._clock() >= known.until_s:
                return self._dialects, False
            if not known.confirmed:
                return (known.dialect,), False
            return (known.dialect, *(d for d in self._dialects if d != known.dialect)), True

    def understood(self, url: str, dialect: Dialect) -> None:
        """The broker answered in this dialect."""
        with self._lock:
            known = self._of(url)
            known.pace.answered()
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

    def pace_of(self, url: str) -> Pace:
        """When the broker may be asked again."""
        with self._lock:
            return self._of(url).pace

    def _of(self, url: str) -> _Known:
        known = self._known.get(url)
        if known is None:
            if len(self._known) >= MAX_BROKERS:
                del self._known[next(iter(self._known))]
            known = self._known[url] = _Known(Pace(now=self._clock))
        return known


class Tokens:
    """Authorization headers of ``V1``, one for each broker, made anew when half of its life is over. Thread-safe."""

    def __init__(self, key: Signer, context: SigningContext) -> None:
        self._key = key
        self._context = context
        self._lock = threading.Lock()
        self._made: dict[Address, tuple[str, int]] = {}

    def of(self, broker: Address) -> str:
        now_ms = time.time_ns() // 1_000_000
        with self._lock:
            made = self._made.get(broker)
            if made is None or abs(now_ms - made[1]) > TOKEN_LIFE_MS // 2:
                login = Login(self._key.address, broker, now_ms + TOKEN_LIFE_MS, secrets.token_bytes(32))
                while len(self._made) >= MAX_BROKERS:
                    del self._made[next(iter(self._made))]
                made = self._made[broker] = (write_login(sign_login(login, self._key, self._context)), now_ms)
            return made[0]


def make_logins(key: SigningKey) -> dict[bool, str]:
    """Authorization headers, by whether the password is hex: lower-case address, and the EIP-191 signature over it."""
    user = "0x" + key.address.hex()
    signature = key.sign(digest_of_payload(SignatureType.ECDSA_SECP256K1_EVM, user.encode()))
    passwords = {True: "0x" + signature.hex(), False: base64.b64encode(signature).decode()}
    return {
        hex_password: "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        for hex_password, password in passwords.items()
    }
