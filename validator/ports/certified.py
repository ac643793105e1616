"""Certified history: what validators agreed on and stored for ever, as a broker answers from it.

A message of the past is in one *set*: its window, or the late set of a later bundle, each with a root, a count and a
certificate. ``as_of``, the number of a bundle, says which sets count: the windows of the bundles up to it, and their
late sets. With one ``as_of`` every honest broker has the same sets, the same rows in them and the same proofs, byte for
byte. What a broker holds besides is its *tail*: newer than the last certified window, or late and in no set so far.

Everything is synchronous and thread-safe, and may take as long as a gateway's deadline, so callers on an event loop use
``asyncio.to_thread``. Every method may raise TransientError (nobody gives what is needed now) and RemoteFault (what was
given is not what the contract holds); nothing that failed a check is ever returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from validator.ports.message_store import Columns, SortKey, StoredRow
from validator.protocol.completeness import SetClimb, SetProof
from validator.protocol.errors import TransientError
from validator.protocol.model import Flag, InstanceId, PartitionEntry, StreamPart


class NotVerifiedYet(TransientError):
    """``as_of`` names a bundle that is not verified here; ``newest`` is the number of the last one that is, or None."""


class MarkedRow(NamedTuple):
    """A row of an answer, and the set that holds it; ``instance`` None: no set up to ``as_of`` does, it is tail."""

    row: StoredRow
    instance: InstanceId | None


class MarkedPage(NamedTuple):
    """Rows of an answer, each in the window of its time where certificates cover that, but for ``exceptions``: place in
    the page, and the late set that holds the row; None: no set up to ``as_of`` does, it is tail."""

    columns: Columns
    exceptions: Sequence[tuple[int, InstanceId | None]]


@dataclass(frozen=True, slots=True)
class CertifiedSet:
    """A window or late set, as far as one stream partition is concerned.

    Its messages lie in [from_ms, until_ms): a window's own span, or as far as the late set may reach back. ``entry``
    None: the set has no entry for the partition, which can be proven like an entry.
    """

    bundle: int
    instance: InstanceId
    from_ms: int
    until_ms: int
    entry: PartitionEntry | None

    @property
    def flags(self) -> Flag:
        return Flag(0) if self.entry is None else self.entry.flags


class CertifiedHistory(Protocol):
    """Sets, their rows and their proofs, from the message store or, where that has no longer all, from the lake."""

    def newest(self) -> int | None:
        """Number of the newest bundle whose report is final and whose manifest is verified; None before the first."""

    def complete_to(self, as_of: int) -> int:
        """Up to where certificates cover time: the end of the bundle's last window, exclusive.

        Raises:
            NotVerifiedYet: no such bundle is verified here.
        """

    def sets(
        self, part: StreamPart, from_ms: int, until_ms: int, as_of: int, *, behind_ms: int = 0
    ) -> Iterator[CertifiedSet]:
        """All sets up to ``as_of`` that may hold messages of the span: windows by time, then late sets by number.

        They are found as they are asked for. Windows that end at ``behind_ms`` or earlier are left out.

        Raises:
            NotVerifiedYet: no such bundle is verified here.
        """

    def page(
        self,
        part: StreamPart,
        from_ms: int,
        until_ms: int,
        as_of: int,
        *,
        after: SortKey | None = None,
        limit: int,
    ) -> MarkedPage:
        """At most ``limit`` rows of all tiers of [from_ms, until_ms) behind ``after``, in order; each stands once.

        Like ``MessageStore.page``: fewer where their bytes are many, only an empty page is the end. The span may reach
        beyond ``complete_to``: what lies there is tail.

        Raises:
            NotVerifiedYet: no such bundle is verified here.
        """

    def prove(self, found: CertifiedSet, part: StreamPart, from_ms: int, until_ms: int) -> SetProof:
        """That the rows marked with one of ``sets`` are all that it has in the span."""

    def climb(self, found: Sequence[CertifiedSet]) -> SetClimb:
        """From windows that stand one behind the other in one bundle up to its root."""
