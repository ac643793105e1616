from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.fakes.peer_service import FakePeerService, FakeSet, a_body
from validator.protocol.codec.message import leaf_of_canonical
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import Address, Digest, PartitionEntry, Root, StreamPart
from validator.steps.reconcile import difference

MEMBER = Address(b"\x01" * 20)
MS = 1_700_000_000_000


class DirectPeers:
    """What reconciliation needs of ``Peers``, straight from a peer service; remembers each session's messages."""

    def __init__(self, *sets: FakeSet) -> None:
        self.service = FakePeerService(MEMBER, {})
        for a_set in sets:
            self.service.add(a_set)
        self.asked: list[tuple[tuple[StreamPart, ...], bool]] = []
        self.bytes = 0

    def fetch_entries(self, member: Address, set_root: Root) -> tuple[PartitionEntry, ...]:
        return self.service.entries(member, set_root)

    def reconcile(
        self, member: Address, set_root: Root, parts: Sequence[StreamPart], message: bytes, *, strong: bool
    ) -> bytes:
        self.asked.append((tuple(parts), strong))
        answer = self.service.reconcile(member, set_root, parts, message, strong=strong)
        self.bytes += len(message) + len(answer)
        return answer


def find(peers: Any, theirs: FakeSet, ours: FakeSet, **options: Any) -> Any:
    return difference(peers, MEMBER, theirs.root, ours, **options)


def part(*numbers: int) -> list[tuple[int, bytes]]:
    return [(MS + n, a_body(n)) for n in numbers]


def leaves(*numbers: int) -> tuple[Digest, ...]:
    return tuple(sorted(leaf_of_canonical(a_body(n)) for n in numbers))


def test_equal_sets_need_no_session() -> None:
    same = FakeSet({("s", 0): part(*range(100))})
    peers = DirectPeers(same)
    found = find(peers, same, same)
    assert (found.need, found.have, found.rounds) == ((), (), 0)
    assert found.entries == same.entries
    assert peers.asked == []


def test_only_partitions_that_differ_take_part_in_one_session() -> None:
    theirs = FakeSet({("a", 0): part(*range(50)), ("b", 0): part(100, 101), ("b", 1): part(200), ("d", 0): part(400)})
    ours = FakeSet({("a", 0): part(*range(50)), ("b", 0): part(100, 102), ("c", 0): part(300), ("d", 0): part(400)})
    peers = DirectPeers(theirs)
    found = find(peers, theirs, ours)
    assert found.need == leaves(101, 200)
    assert found.have == leaves(102, 300)
    assert peers.asked == [((("b", 0), ("b", 1)), False)]


def test_an_empty_set_of_ours_needs_everything_and_of_theirs_nothing() -> None:
    full, empty = FakeSet({("s", 0): part(*range(1000))}), FakeSet({})
    peers = DirectPeers(full, empty)
    assert find(peers, full, empty).need == leaves(*range(1000))
    found = find(peers, empty, full)
    assert (found.need, found.have) == ((), leaves(*range(1000)))


def test_one_message_missing_of_many_costs_little() -> None:
    theirs = FakeSet({("s", 0): part(*range(5000))})
    ours = FakeSet({("s", 0): part(*range(4999))})
    peers = DirectPeers(theirs)
    found = find(peers, theirs, ours)
    assert found.need == leaves(4999)
    assert found.rounds <= 4
    assert peers.bytes < 5000 * 32 / 20


def test_entries_must_add_up_to_the_signed_count() -> None:
    theirs = FakeSet({("s", 0): part(1, 2)})
    assert find(DirectPeers(theirs), theirs, FakeSet({}), count=2).need == leaves(1, 2)
    with pytest.raises(RemoteFault, match="add up"):
        find(DirectPeers(theirs), theirs, FakeSet({}), count=3)


def test_a_session_deceived_by_colliding_sums_is_repeated_with_strong_fingerprints() -> None:
    theirs = FakeSet({("s", 0): part(*range(64))})
    ours = FakeSet({("s", 0): part(*range(60))})
    peers = DirectPeers(theirs)
    real = peers.reconcile

    def deceived(member: Address, set_root: Root, parts: Any, message: bytes, *, strong: bool) -> bytes:
        reply = real(member, set_root, parts, message, strong=strong)
        return reply if strong else b"\x61"  # as if every range had the same fingerprint

    peers.reconcile = deceived  # type: ignore[method-assign]
    assert find(peers, theirs, ours).need == leaves(60, 61, 62, 63)
    assert {strong for _, strong in peers.asked} == {False, True}


def test_strong_may_be_asked_for_at_once() -> None:
    theirs, ours = FakeSet({("s", 0): part(*range(64))}), FakeSet({("s", 0): part(*range(60))})
    peers = DirectPeers(theirs)
    assert find(peers, theirs, ours, strong=True).need == leaves(60, 61, 62, 63)
    assert {strong for _, strong in peers.asked} == {True}


# --- a member that lies ---------------------------------------------------------------------------


class Lying(DirectPeers):
    def __init__(self, reply: bytes, *sets: FakeSet) -> None:
        super().__init__(*sets)
        self.reply = reply

    def reconcile(self, *args: Any, **options: Any) -> bytes:
        self.asked.append(((), False))
        return self.reply


def an_id_list(ids: Sequence[bytes]) -> bytes:
    assert len(ids) < 128
    return b"\x61\x00\x00\x02" + bytes([len(ids)]) + b"".join(ids)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"", "cut short"),
        (b"\x61", "count"),
        (b"\x60", "version"),
        (an_id_list([bytes([n]) * 32 for n in range(100)]), "more than the 5"),
        (an_id_list([]), "count"),
        (an_id_list(leaves(0, 1)), "count"),
        (b"\x61\x00\x00\x01" + bytes(16), "rounds"),
    ],
)
def test_answers_that_lead_nowhere_are_the_members_fault(reply: bytes, reason: str) -> None:
    theirs, ours = FakeSet({("s", 0): part(*range(5))}), FakeSet({("s", 0): part(*range(3))})
    peers = Lying(reply, theirs)
    with pytest.raises(RemoteFault, match=reason) as caught:
        find(peers, theirs, ours)
    assert caught.value.member == MEMBER
    assert len(peers.asked) <= 17


def test_a_session_of_a_liar_that_claims_endless_counts_ends_with_its_time() -> None:
    """Rounds are bounded by counts, and those are the liar's own."""
    theirs, ours = FakeSet({("s", 0): part(*range(5))}), FakeSet({("s", 0): part(*range(3))})
    peers = Lying(b"\x61\x00\x00\x01" + bytes(16), theirs)
    with pytest.raises(TransientError, match="no end of the session after 3 rounds"):
        find(peers, theirs, ours, expired=lambda: len(peers.asked) >= 3)


def test_what_we_have_is_never_needed_whatever_the_member_says() -> None:
    theirs, ours = FakeSet({("s", 0): part(0, 1, 2, 3)}), FakeSet({("s", 0): part(0, 1, 2)})
    found = find(Lying(an_id_list(leaves(0, 1, 2, 3)), theirs), theirs, ours)
    assert found.need == leaves(3)


def test_a_set_that_the_member_lacks_may_be_there_later() -> None:
    with pytest.raises(TransientError, match="not here"):
        difference(DirectPeers(), MEMBER, Root(b"\x05" * 32), FakeSet({}))  # type: ignore[arg-type]
