"""What one member's set holds that ours does not, and the other way round: the sessions of set reconciliation.

Cost follows the difference. Only stream partitions whose roots differ take part, in one session per peer; what is
missing is then fetched by leaf hash. Everything a member may make us do is bounded by the counts in its entries, which
its signed observation bounds in turn, and, since a liar chooses those, by a time for the whole of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from validator.ports.peers import Peers
from validator.protocol.codec.outcome import part_order
from validator.protocol.columns import MessageSet
from validator.protocol.consensus.reconcile import FRAME_LIMIT, ID_BYTES, Records, initiate, reconcile
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError
from validator.protocol.model import Address, Digest, PartitionEntry, Root, StreamPart

_ROUNDS = 16
"""Round trips of a session whose messages fit one frame: 16-way splits reach any size in 16 steps."""


@dataclass(frozen=True, slots=True)
class Difference:
    """``need``: leaves only the member has; ``have``: leaves only we have. Both sorted. ``rounds``: round trips."""

    entries: tuple[PartitionEntry, ...]
    need: tuple[Digest, ...]
    have: tuple[Digest, ...]
    rounds: int = 0


def difference(
    peers: Peers,
    member: Address,
    set_root: Root,
    own: MessageSet,
    *,
    count: int | None = None,
    strong: bool = False,
    expired: Callable[[], bool] = lambda: False,
) -> Difference:
    """Compare our set with the member's set behind ``set_root``.

    ``count`` is the number of messages that the member's observation signed. A session whose result does not give the
    member's count is repeated with ``strong`` fingerprints; so does the caller where the fetched messages do not give
    the member's roots. ``expired``: whether the time that this member may take is up; a session's length follows from
    counts that a liar chooses.

    Raises:
        RemoteFault: the member's entries or answers contradict each other.
        TransientError: the member does not answer now, or not within its time.
    """
    entries = peers.fetch_entries(member, set_root)
    if count is not None and sum(e.count for e in entries) != count:
        raise _fault(member, "entries do not add up to the count that its observation signed")
    theirs = {entry.stream_part: entry for entry in entries}
    ours = {entry.stream_part: entry for entry in own.entries}
    differing = [part for part, entry in theirs.items() if part not in ours or ours[part].root != entry.root]
    have = {leaf for part in ours if part not in theirs for page in own.pages(part) for leaf in page.list_leaves()}
    if not differing:
        return Difference(entries, (), tuple(sorted(have)))
    differing.sort(key=part_order)
    records = records_of(own, differing)
    expected = sum(theirs[part].count for part in differing)
    rounds = 0
    for fingerprints in (True,) if strong else (False, True):
        session = _run(peers, member, set_root, differing, records, expected, expired, strong=fingerprints)
        rounds += session.rounds
        if len(records) - len(session.have) + len(session.need) == expected:
            return Difference(entries, session.need, tuple(sorted(have.union(session.have))), rounds)
    raise _fault(member, "a session that does not give the count of its entries")


def records_of(messages: MessageSet, parts: Iterable[StreamPart]) -> Records:
    """The messages of some partitions as a session compares them; a partition named twice counts twice."""
    return Records(
        item
        for part in parts
        for page in messages.pages(part)
        for item in zip(page.timestamps_ms, page.list_leaves(), strict=True)
    )


def _run(
    peers: Peers,
    member: Address,
    set_root: Root,
    parts: Sequence[StreamPart],
    records: Records,
    expected: int,
    expired: Callable[[], bool],
    *,
    strong: bool,
) -> Difference:
    """One session. Ids may come twice (frame limits), and a member may name as missing what we have: sets settle it."""
    have: set[Digest] = set()
    need: set[Digest] = set()
    most = _ROUNDS + 4 * (len(records) + expected) * ID_BYTES // FRAME_LIMIT
    message: bytes | None = initiate(records, strong=strong)
    rounds = 0
    while message is not None:
        if rounds == most:
            raise _fault(member, f"a session of more than {most} rounds")
        if expired():
            raise TransientError(f"0x{member.hex()}: no end of the session after {rounds} rounds", member=member)
        answer = peers.reconcile(member, set_root, parts, message, strong=strong)
        rounds += 1
        try:
            message, only_ours, only_theirs = reconcile(records, answer, strong=strong)
        except MalformedInput as error:
            raise _fault(member, str(error)) from error
        have.update(only_ours)
        named = set(only_theirs) - need
        need |= named - records.among(named)
        if len(need) > expected:
            raise _fault(member, f"more than the {expected} messages of its entries")
    return Difference((), tuple(sorted(need)), tuple(sorted(have)), rounds)


def _fault(member: Address, reason: str) -> RemoteFault:
    return RemoteFault(f"0x{member.hex()}: {reason}", member=member, reason=reason)
