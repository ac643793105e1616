"""What an answer says of the certified sets in its span, as their last message has been given.

Windows follow each other, so a window is proven once a message behind its end was given; late sets reach anywhere, so
they are proven where nothing follows any more. The way up through a bundle is said once for several of its windows,
before the first. An answer that goes on behind a cursor begins with the windows that end behind it: whoever gave the
part before has proven the others. So a reader keeps the leaves of one window and of the late sets, whatever the length
of the answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby, islice

from validator.broker.forms import Form
from validator.broker.query import Proof, Query
from validator.ports.certified import CertifiedHistory, CertifiedSet
from validator.protocol.codec.completeness import (
    MAX_MARKS,
    encode_climb,
    encode_commitment,
    encode_marks,
    encode_set_proof,
)
from validator.protocol.completeness import SetCommitment
from validator.protocol.model import Digest, Flag, InstanceId, InstanceKind

CLIMBED = 16
"""Windows whose way up is said at once: an answer that is cut by its limit has said as much in vain."""


class Proving:
    """The sets of one answer. Synchronous; one thread at a time. Without history, or ``as_of``, it says nothing."""

    def __init__(self, history: CertifiedHistory | None, query: Query, form: Form) -> None:
        """Raises NotVerifiedYet."""
        self._query = query
        self._form = form
        self._history = history
        self.flags = Flag(0)
        """Of all sets so far."""
        self.complete_to = 0
        sets: Iterable[CertifiedSet] = ()
        if history is not None and query.as_of is not None:
            r = query.request
            behind_ms = 0 if query.after is None else query.after.timestamp_ms
            self.complete_to = history.complete_to(query.as_of)
            sets = history.sets(r.stream_part, r.from_ms, r.until_ms, query.as_of, behind_ms=behind_ms)
        self._groups = groupby(sets, key=lambda found: (found.bundle, found.instance.kind))
        self._group: deque[CertifiedSet] = deque()
        """Of one bundle, and not spoken of yet."""
        self._climb: frozenset[InstanceId] = frozenset()
        """Whose way up was said."""
        self._next = self._find_next()

    def mark(self, marks: list[tuple[Digest, int | None]]) -> bytes:
        """What is said before a page of rows; nothing where nobody asked for proofs."""
        if self._query.proof is Proof.NONE:
            return b""
        starts = range(0, len(marks), MAX_MARKS)
        return b"".join([self._form.said("marks", encode_marks(marks[at : at + MAX_MARKS])) for at in starts])

    def passed(self, ms: int) -> bytes:
        """What is said of the windows that end at ``ms``, the time of the last row, or before."""
        said: list[bytes] = []
        while (found := self._next) is not None and found.instance.kind is InstanceKind.WINDOW and found.until_ms <= ms:
            said.append(self._say(found))
        return b"".join(said)

    def rest(self) -> Iterator[bytes]:
        """What is said of all other sets, where nothing follows."""
        while (found := self._next) is not None:
            yield self._say(found)

    def _find_next(self) -> CertifiedSet | None:
        if not self._group:
            _, group = next(self._groups, (None, ()))
            self._group.extend(group)
        return self._group[0] if self._group else None

    def _say(self, found: CertifiedSet) -> bytes:
        self.flags |= found.flags
        said = self._say_of(found)
        self._group.popleft()
        self._next = self._find_next()
        return said

    def _say_of(self, found: CertifiedSet) -> bytes:
        r = self._query.request
        if self._query.proof is Proof.COMMITMENT:
            commitment = SetCommitment(found.bundle, found.instance, found.entry)
            return self._form.said("commitment", encode_commitment(commitment))
        if self._query.proof is Proof.FULL and self._history is not None:
            climb = self._say_climb(self._history, found)
            said = self._history.prove(found, r.stream_part, r.from_ms, r.until_ms)
            if found.instance in self._climb:
                said = replace(said, proof=replace(said.proof, bundle=None))
            return climb + self._form.said("proof", encode_set_proof(said, r.from_ms, r.until_ms))
        return b""

    def _say_climb(self, history: CertifiedHistory, found: CertifiedSet) -> bytes:
        """Before the first of several sets of a bundle."""
        if found.instance in self._climb or len(self._group) < 2:
            return b""
        climbing = list(islice(self._group, CLIMBED))
        self._climb = frozenset(each.instance for each in climbing)
        return self._form.said("climb", encode_climb(history.climb(climbing)))
