"""What the processes of one broker share beside its messages: sums, accounts, evidence, and which of them leads.

Everything is synchronous and thread-safe, and may raise TransientError where it asks a database: callers on an event
loop use a thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from validator.protocol.codec.receipt import Receipt
from validator.protocol.model import Address, StreamPart
from validator.protocol.slices import Sum

Node = tuple[int, int]
"""Start and length of a slice, a block or an hour."""


class Mark(NamedTuple):
    """Messages were stored in a slice since its sum was written: of a partition, or of any where that is unknown."""

    start_ms: int
    part: StreamPart | None
    number: int


class SumBook(Protocol):
    """Sums of slices and of what they make, and marks at slices that are to be summed anew."""

    keeps_marks: bool
    """Whether the message store makes the marks itself, each in the transaction that stores its messages."""

    def mark(self, starts: Iterable[int]) -> None:
        """Where the store makes none."""

    def marks(self) -> list[Mark]: ...

    def settle(self, node: Sum, marks: Collection[int], stale: Sequence[Node]) -> bool:
        """Write a slice's sum, forget what it is part of, and take away these marks, which were seen before it was
        made; all or nothing. False, and nothing, where another process has taken away one of them."""

    def unmark(self, start_ms: int) -> None:
        """Where the store makes no marks: the slice has no news."""

    def load(self, nodes: Sequence[Node]) -> Mapping[Node, Sum]:
        """Those that are written."""

    def filled(self, nodes: Sequence[Node]) -> set[Node]:
        """Those with the sum of a slice below them."""

    def write(self, node: Sum) -> None:
        """One without messages is forgotten."""

    def newest_slice(self) -> int | None: ...

    def looked_from(self) -> int | None:
        """Since when every message has been looked at; None where that never came to an end."""

    def note_looked_from(self, ms: int) -> None: ...

    def drop_before(self, ms: int) -> None: ...

    def close(self) -> None: ...


class Accounts(Protocol):
    """Who owes what. What is charged is known to all who ask for the same consumer once ``may_read`` has answered."""

    def may_read(self, consumer: Address) -> bool:
        """Whether what it owes is below the limit; what was charged here counts."""

    def charge(self, consumer: Address, signed_bytes: int) -> None:
        """Never waits: it is written down by the next ``may_read`` or ``save``."""

    def credit(self, receipt: Receipt) -> bool:
        """Keep a receipt that promises more than the last; whether it does. Durable when this returns."""

    def save(self) -> None: ...

    def count(self) -> int:
        """Consumers with a receipt, as of the last ``save``. Never waits."""

    def close(self) -> None: ...


class EvidenceShelf(Protocol):
    """Signed words that show lies, as bytes by name."""

    def names(self) -> set[str]: ...

    def load(self, name: str) -> bytes | None:
        """None where it is gone, or cannot be read."""

    def save(self, name: str, data: bytes) -> None: ...

    def delete(self, name: str) -> None: ...


class Lead(Protocol):
    """Which of a broker's processes sums, mends, publishes heartbeats and drops old days: one at a time."""

    is_shared: bool
    """Whether there may be others."""

    def acquire(self) -> bool:
        """Whether this process leads from now on."""

    def holds(self) -> bool:
        """Whether it still does. Raises nothing."""

    def release(self) -> None:
        """Raises nothing."""
