"""Lies of other brokers: what each was caught at, by name, and the signed words that show it.

A lie is counted and shown only with what proves it to a stranger: the broker's signed answers (``Spoken``), and where a
message is missing, the proofs that its first word has it and its second has not. Kept are the newest of each broker and
kind, as one file each, so that a liar fills no disk.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from validator.log import get_logger
from validator.protocol.codec import cbor
from validator.protocol.hashing import hash_object
from validator.protocol.model import Address

log = get_logger(__name__)

CONFIRMED_MS, FORGOTTEN_MS = 20_000, 600_000
SUSPICIONS = 4096
KEPT = 16
"""Pieces of evidence kept of one broker and lie: the newest."""


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
            "broker-evidence/1",
            self.broker,
            self.lie.value,
            self.detail[:1000],
            self.at_ms,
            list(self.words),
            list(self.proofs),
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


class EvidenceBook:
    """In memory, and in a folder where there is one. Not thread-safe: it belongs to one event loop."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self.counts: Counter[tuple[Address, Lie]] = Counter()
        self._kept: OrderedDict[tuple[Address, Lie], list[Evidence]] = OrderedDict()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, evidence: Evidence) -> None:
        key = (evidence.broker, evidence.lie)
        self.counts[key] += 1
        log.warning("broker.lied", broker=evidence.broker, lie=evidence.lie, detail=evidence.detail)
        kept = self._kept.setdefault(key, [])
        kept.append(evidence)
        self._save(evidence)
        for old in kept[:-KEPT]:
            if self._folder is not None:
                self._path(old).unlink(missing_ok=True)
        del kept[:-KEPT]

    def of(self, broker: Address) -> Sequence[Evidence]:
        return [e for (whose, _), kept in self._kept.items() if whose == broker for e in kept]

    def _save(self, evidence: Evidence) -> None:
        if self._folder is None:
            return
        path = self._path(evidence)
        half = path.with_suffix(".half")
        try:
            half.write_bytes(evidence.encode())
            half.replace(path)
        except OSError as error:
            log.warning("evidence.not_saved", reason=str(error))

    def _path(self, evidence: Evidence) -> Path:
        assert self._folder is not None
        name = f"0x{evidence.broker.hex()}-{evidence.lie}-{hash_object(evidence.encode()).hex()[:16]}.cbor"
        return self._folder / name
