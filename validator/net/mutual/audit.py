"""The consumer's audit: what has the broker that answered left out, that a second one holds?

The received leaves are compared with the second broker's in Negentropy sessions, so that cost follows the difference,
and what only the second one has is fetched. Everything it says is signed and may itself be a lie: a message it brings
must be checked like any other, and then proves, beside the first broker's signed root, that it was left out
(protocol.omission). What the second lacks says nothing against the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from validator.net.mutual import wire
from validator.net.signed.client import Spoken
from validator.net.signed.pages import MAX_LEAVES, decode_page
from validator.protocol.codec.message import record_from_canonical
from validator.protocol.consensus.reconcile import Records, initiate, reconcile
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError
from validator.protocol.model import Digest, Record, StreamPart

Ask = Callable[[str, bytes], Spoken]
"""(path, body) -> the second broker's signed answer: ``HttpLine.ask_now`` of that broker, raising as that does."""
Key = tuple[int, Digest]
"""Timestamp in ms and leaf hash of a message."""
SESSION_RECORDS = 100_000
_TOO_MUCH = 422
_ROUNDS = 64


@dataclass(frozen=True, slots=True)
class Audit:
    """``omitted``: messages that only the second broker has, unchecked; ``extra``: leaves that it lacks."""

    omitted: tuple[Record, ...]
    extra: tuple[Digest, ...]
    sent_bytes: int
    received_bytes: int


def audit_answer(ask: Ask, part: StreamPart, from_ms: int, until_ms: int, received: Sequence[Key]) -> Audit:
    """``received``: of the messages of [from_ms, until_ms) that the first broker gave, in order of time.

    Raises:
        TransientError: the second broker does not answer now.
        RemoteFault: it refuses, or its answers are none.
    """
    return _Auditing(ask, part).run(from_ms, until_ms, received)


class _Auditing:
    def __init__(self, ask: Ask, part: StreamPart) -> None:
        self._ask_broker = ask
        self._part = part
        self._sent = self._received = 0

    def run(self, from_ms: int, until_ms: int, received: Sequence[Key]) -> Audit:
        omitted: list[Record] = []
        extra: list[Digest] = []
        for have, records in self._compare(from_ms, until_ms, received):
            extra += have
            omitted += records
        omitted.sort(key=lambda r: r.order)
        return Audit(tuple(omitted), tuple(extra), self._sent, self._received)

    def _compare(
        self, from_ms: int, until_ms: int, received: Sequence[Key]
    ) -> Iterator[tuple[set[Digest], list[Record]]]:
        """In halves of the time where one session would be too much, for us or for the broker."""
        if from_ms >= until_ms:
            return
        inside = [key for key in received if from_ms <= key[0] < until_ms]
        try:
            if len(inside) > SESSION_RECORDS and until_ms - from_ms > 1:
                raise RemoteFault("too much for one session", status=_TOO_MUCH)
            yield self._session(from_ms, until_ms, inside)
            return
        except RemoteFault as fault:
            if fault.fields.get("status") != _TOO_MUCH or until_ms - from_ms < 2:
                raise
        middle_ms = (from_ms + until_ms) // 2
        yield from self._compare(from_ms, middle_ms, inside)
        yield from self._compare(middle_ms, until_ms, inside)

    def _session(self, from_ms: int, until_ms: int, inside: Sequence[Key]) -> tuple[set[Digest], list[Record]]:
        records = Records(inside)
        have: set[Digest] = set()
        need: set[Digest] = set()
        message: bytes | None = initiate(records)
        for _ in range(_ROUNDS):
            assert message is not None
            body = wire.encode_reconcile(from_ms, until_ms, [self._part], message)
            message, only_ours, only_theirs = reconcile(records, self._ask(wire.RECONCILE, body))
            have.update(only_ours)
            named = set(only_theirs) - need
            need |= named - records.among(named)
            if message is None:
                return have, self._fetch(from_ms, until_ms, need)
        raise RemoteFault(f"a session of more than {_ROUNDS} rounds")

    def _fetch(self, from_ms: int, until_ms: int, leaves: set[Digest]) -> list[Record]:
        found: list[Record] = []
        while leaves:
            asked = sorted(leaves)[:MAX_LEAVES]
            page = decode_page(
                self._ask(wire.BODIES, wire.encode_bodies(from_ms, until_ms, [self._part], asked)), len(asked)
            )
            for item in page:
                record = record_from_canonical(item)
                m = record.message
                if record.leaf not in leaves or m.stream_part != self._part or not from_ms <= m.timestamp_ms < until_ms:
                    raise MalformedInput("bodies", "a message that was not asked for")
                leaves.discard(record.leaf)
                found.append(record)
            if not page:
                raise TransientError(f"{len(leaves)} messages that the broker names, and does not serve")
        return found

    def _ask(self, path: str, body: bytes) -> bytes:
        spoken = self._ask_broker(path, body)
        self._sent += len(body)
        self._received += len(spoken.body)
        return spoken.body
