"""Signatures of one batch after another, from whoever cares to send some: recovery's verdicts, at half of its cost.

Most batches hold nothing but what their publishers signed: one equation says so of all of it (``signature_equation``).
Where it is not true every signature of the batch is recovered, so who forges makes a batch cost half as much again.
That is bounded twice, in messages and not by a clock:

    apart   a publisher in whose name something was forged is recovered, one by one, for the next ``APART_FOR`` messages
    pause   an equation that is not true, while what the last such cost is not saved again, is followed by ``PAUSE``
            times its messages of which all are recovered

So a forger can take away what the equation saves, and cost a sixteenth of an equation a message beside, 3 % of
recovery. Small batches are recovered at once, as ever. Memory is bounded: the keys that were used last.

Decided against (docs/decisions): recovery of each, halving of sums that are not true (0033).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from validator.protocol.codec.recovery import MAX_REMEMBERED, KeyStruct, Signed, check_recovered
from validator.protocol.codec.signature_equation import MIN_TOGETHER, check_and_tell
from validator.protocol.codec.signatures import Verdict, verify_by
from validator.protocol.model import Message, Record

APART_FOR = 1 << 17
"""Some ten seconds of a busy core, so a publisher whose name is misused is soon added up again."""
PAUSE = 16
MOST_LOST = 1 << 17
"""What is remembered as lost: an hour of forgeries is forgiven within minutes."""


class BatchVerifier:
    """Several threads may verify batches at once where a lock is given; it is held before and after, not meanwhile."""

    def __init__(
        self,
        lock: AbstractContextManager[object] | None = None,
        *,
        remembered: int = MAX_REMEMBERED,
        apart_for: int = APART_FOR,
    ) -> None:
        self._lock = lock or nullcontext()
        self._remembered = remembered
        self._apart_for = apart_for
        self._keys: dict[bytes, KeyStruct] = {}
        """The last used are last."""
        self._apart: dict[bytes, int] = {}
        """Until how many messages have come."""
        self._come = 0
        self._paused_until = 0
        self._lost = 0
        """Messages in equations that were not true, less those that true ones have saved since."""
        self.equations = 0
        self.untrue = 0

    @property
    def known(self) -> int:
        """Publishers whose keys are remembered."""
        return len(self._keys)

    def verify(self, messages: Sequence[Message] | Sequence[Record]) -> list[Verdict]:
        """What ``verify_batch`` says of each."""
        return verify_by(messages, self._check)

    def _check(self, signed: Sequence[Signed]) -> list[bool | None]:
        publishers = dict.fromkeys(address for _, _, address in signed)
        with self._lock:
            self._come += len(signed)
            is_paused = self._come <= self._paused_until
            apart = {address for address in publishers if self._apart.get(address, 0) >= self._come}
            keys = {address: self._keys[address] for address in publishers if address in self._keys}
        if is_paused:
            return list(check_recovered(signed))
        verdicts, is_true = check_and_tell(signed, keys, apart)
        forged = _misused(signed, verdicts, keys) if is_true is False else []
        with self._lock:
            self._remember(keys)
            if is_true is not None:
                self._count(len(signed), forged, is_true=is_true)
        return verdicts

    def _remember(self, keys: dict[bytes, KeyStruct]) -> None:
        for address, key in keys.items():
            self._keys.pop(address, None)
            self._keys[address] = key
        _forget_oldest(self._keys, self._remembered)

    def _count(self, size: int, forged: Sequence[bytes], *, is_true: bool) -> None:
        self.equations += 1
        if is_true:
            self._lost = max(0, self._lost - max(0, size - 2 * MIN_TOGETHER))
            return
        self.untrue += 1
        if self._lost:
            self._paused_until = max(self._paused_until, self._come + PAUSE * size)
        self._lost = min(self._lost + size, MOST_LOST)
        for address in forged:
            self._apart.pop(address, None)
            self._apart[address] = self._come + self._apart_for
        _forget_oldest(self._apart, self._remembered)


def _misused(signed: Sequence[Signed], verdicts: Sequence[bool | None], keys: dict[bytes, KeyStruct]) -> list[bytes]:
    """Publishers in whose name something was forged; those without a known key were in no equation."""
    wrong = [item[2] for item, verdict in zip(signed, verdicts, strict=True) if not verdict]
    return [address for address in dict.fromkeys(wrong) if address in keys]


def _forget_oldest(remembered: dict[bytes, KeyStruct] | dict[bytes, int], limit: int) -> None:
    while len(remembered) > limit:
        del remembered[next(iter(remembered))]
