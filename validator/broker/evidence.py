"""Lies of other brokers: what each was caught at, by name, and the signed words that show it.

A lie is counted and shown only with what proves it to a stranger: the broker's signed answers (``Spoken``), and where a
message is missing, the proofs that its first word has it and its second has not. Kept are the newest of each broker and
kind, as one file each, so that a liar fills no disk. A restart reads them again, and counts on from what is kept.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from validator.log import get_logger
from validator.ports.broker_state import EvidenceShelf
from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_blob, read_bytes, read_list, read_u63
from validator.protocol.errors import MalformedInput, TransientError
from validator.protocol.hashing import hash_object
from validator.protocol.model import Address

log = get_logger(__name__)

CONFIRMED_MS, FORGOTTEN_MS = 20_000, 600_000
SUSPICIONS = 4096
KEPT = 16
"""Pieces of evidence kept of one broker and lie: the newest."""
MAX_EVIDENCE_BYTES = 512 << 20
MAX_WORDS = 16
_KIND = "broker-evidence/1"


class Lie(StrEnum):
    """What another broker was caught at."""

    FORGED = "forged"
    """Serves a message whose signature is none: it did not check what it holds, or made it."""
    WRONG_ROOT = "wrong-root"
    """What it lists does not give the root that it claims."""
    NOT_HELD = "not-held"
    """Claims messages that it cannot serve: another's claim, repeated."""
    WITHHELD = "withheld"
    """Held a message, by its own word, and claims a set without it later."""
    EQUIVOCATED = "equivocated"
    """Two heartbeats of one moment that differ; or two brokers with one key."""
    OUT_OF_ORDER = "out-of-order"
    """Claims a root over messages that do not stand in the one order: no proof against it could be read."""
    STALE = "stale"
    """Signs at one moment a claim of another: its heartbeat says nothing of the slices that have closed since."""
    UNFIT = "unfit"
    """Signed an answer that is none: not to the protocol, not what was asked for."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """``words``: signed bytes of the broker (``Spoken``, messages), in order; ``proofs``: what leads from one to the
    other, as the lie's kind has it."""

    broker: Address
    lie: Lie
    detail: str
    at_ms: int
    words: tuple[bytes, ...] = ()
    proofs: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        return cbor.encode_object(
            _KIND,
            self.broker,
            self.lie.value,
            self.detail[:1000],
            self.at_ms,
            list(self.words),
            list(self.proofs),
        )

    @property
    def name(self) -> str:
        """Of its file, and of its path on the operator's listener."""
        return f"0x{self.broker.hex()}-{self.lie}-{hash_object(self.encode()).hex()[:16]}.cbor"


def decode_evidence(data: bytes) -> Evidence:
    """Inverse of ``Evidence.encode``; what the words say is not checked here. Raises MalformedInput."""
    f = cbor.decode_object(data, _KIND, 6, max_bytes=MAX_EVIDENCE_BYTES)
    if not isinstance(f[1], str) or f[1] not in set(Lie):
        raise MalformedInput("evidence.lie", "none that is known")
    if not isinstance(f[2], str):
        raise MalformedInput("evidence.detail", "not a text")
    words, proofs = read_list(f[4], "evidence.words"), read_list(f[5], "evidence.proofs")
    if max(len(words), len(proofs)) > MAX_WORDS:
        raise MalformedInput("evidence.words", f"more than {MAX_WORDS}")
    return Evidence(
        Address(read_bytes(f[0], 20, "evidence.broker")),
        Lie(f[1]),
        f[2],
        read_u63(f[3], "evidence.time"),
        tuple(read_blob(word, "evidence.words") for word in words),
        tuple(read_blob(proof, "evidence.proofs") for proof in proofs),
    )


class Suspicions:
    """Contradictions between two answers, which an honest broker may give for a moment: a message was on its way.

    Only what is found once more, some time later, is a lie.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._first_ms: OrderedDict[Hashable, int] = OrderedDict()

    def is_confirmed(self, *what: Hashable) -> bool:
        now_ms = self._now_ms()
        first_ms = self._first_ms.setdefault(what, now_ms)
        if now_ms - first_ms > FORGOTTEN_MS:
            first_ms = self._first_ms[what] = now_ms
        while len(self._first_ms) > SUSPICIONS:
            self._first_ms.popitem(last=False)
        return now_ms - first_ms >= CONFIRMED_MS


class FolderShelf:
    """A file of each piece (``ports.broker_state.EvidenceShelf``)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def names(self) -> set[str]:
        return {path.name for path in self._folder.glob("*.cbor")}

    def load(self, name: str) -> bytes | None:
        path = self._folder / name
        try:
            return path.read_bytes() if path.stat().st_size <= MAX_EVIDENCE_BYTES else None
        except OSError as error:
            log.warning("evidence.not_read", file=name, reason=str(error))
            return None

    def save(self, name: str, data: bytes) -> None:
        path = self._folder / name
        half = path.with_suffix(".half")
        try:
            half.write_bytes(data)
            half.replace(path)
        except OSError as error:
            raise TransientError(f"{name}: {error}", reason="disk") from error

    def delete(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)


class EvidenceBook:
    """In memory, and on a shelf where there is one. Not thread-safe: it belongs to one event loop.

    ``write`` is handed what changes the shelf: whoever's shelf may be long in answering does it on a thread.
    """

    def __init__(
        self, shelf: EvidenceShelf | None = None, write: Callable[[Callable[[], None]], object] = lambda job: job()
    ) -> None:
        self._shelf = shelf
        self._write = write
        self.counts: Counter[tuple[Address, Lie]] = Counter()
        self._kept: OrderedDict[tuple[Address, Lie], list[Evidence]] = OrderedDict()
        self.learn(self.load_new())

    def load_new(self) -> list[Evidence]:
        """What is on the shelf and not here: kept before this start, or by another process. May be called on a thread.

        What cannot be read stays where it is. Raises TransientError.
        """
        if self._shelf is None:
            return []
        found: list[Evidence] = []
        known = {e.name for kept in list(self._kept.values()) for e in list(kept)}
        for name in sorted(self._shelf.names() - known):
            try:
                if (data := self._shelf.load(name)) is not None:
                    found.append(decode_evidence(data))
            except MalformedInput as error:
                log.warning("evidence.not_read", file=name, reason=str(error))
        return found

    def learn(self, found: Sequence[Evidence]) -> None:
        """The oldest first."""
        for evidence in sorted(found, key=lambda e: e.at_ms):
            key = (evidence.broker, evidence.lie)
            self.counts[key] += 1
            kept = self._kept.setdefault(key, [])
            kept.append(evidence)
            del kept[:-KEPT]

    def add(self, evidence: Evidence) -> None:
        key = (evidence.broker, evidence.lie)
        self.counts[key] += 1
        log.warning("broker.lied", broker=evidence.broker, lie=evidence.lie, detail=evidence.detail)
        kept = self._kept.setdefault(key, [])
        kept.append(evidence)
        old = [e.name for e in kept[:-KEPT]]
        del kept[:-KEPT]
        self._write(lambda: self._save(evidence, old))

    def of(self, broker: Address) -> Sequence[Evidence]:
        return [e for (whose, _), kept in self._kept.items() if whose == broker for e in kept]

    def all(self) -> Sequence[Evidence]:
        """All that is kept, the newest first."""
        return sorted((e for kept in self._kept.values() for e in kept), key=lambda e: -e.at_ms)

    def _save(self, evidence: Evidence, old: Sequence[str]) -> None:
        if self._shelf is None:
            return
        try:
            self._shelf.save(evidence.name, evidence.encode())
            for name in old:
                self._shelf.delete(name)
        except (OSError, TransientError) as error:
            log.warning("evidence.not_saved", reason=str(error))
