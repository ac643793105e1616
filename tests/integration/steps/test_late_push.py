"""Messages that a peer pushes as candidates for a late set: kept only where the network stores them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.builders import a_key
from tests.fakes.small_network import SmallNetwork
from tests.fakes.world import STREAM
from validator.protocol.codec.message import make_record
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Message
from validator.steps.peer_service import MAX_LATE_MESSAGES

MakeNetwork = Callable[..., SmallNetwork]
CANDIDATES = "SELECT count(*) FROM late_candidates"


def a_candidate(network: SmallNetwork, **fields: object) -> Message:
    return network.world.publish(100, b'{"late":1}', delays={}, **fields).message  # type: ignore[arg-type]


def of_another_stream(network: SmallNetwork) -> bytes:
    """Its publisher may publish there, yet nobody pays for storing it."""
    stream = "unstored.eth/data"
    network.world.publishers.add((stream, network.world.publish(0, b"{}", delays={}).message.publisher_id))
    return make_record(a_candidate(network, stream_id=stream)).canonical


def of_another_partition(network: SmallNetwork) -> bytes:
    return make_record(a_candidate(network, partition=1)).canonical


def of_a_stranger(network: SmallNetwork) -> bytes:
    return make_record(a_candidate(network, key=a_key(666))).canonical


def with_another_signature(network: SmallNetwork) -> bytes:
    return make_record(replace(a_candidate(network), content=b'{"forged":1}')).canonical


def of_the_future(network: SmallNetwork) -> bytes:
    return make_record(network.world.publish(3_600_000, b'{"future":1}', delays={}).message).canonical


def older_than_any_late_set_reaches(network: SmallNetwork) -> bytes:
    return make_record(network.world.publish(-3_600_000, b'{"past":1}', delays={}).message).canonical


def too_large(network: SmallNetwork) -> bytes:
    return make_record(network.world.publish(100, b"0" * 11_000, delays={}).message).canonical


def ten_mebibytes_of_nothing(network: SmallNetwork) -> bytes:
    return bytes(10 << 20)


def no_message(network: SmallNetwork) -> bytes:
    return b"\x83\x01"


BAD = [
    of_another_stream,
    of_another_partition,
    of_a_stranger,
    with_another_signature,
    of_the_future,
    older_than_any_late_set_reaches,
    too_large,
    ten_mebibytes_of_nothing,
    no_message,
]


@pytest.fixture
def network(a_network: MakeNetwork) -> SmallNetwork:
    made = a_network(4)
    made.run_until(2_500)
    return made


@pytest.mark.parametrize("bad", BAD, ids=[bad.__name__ for bad in BAD])
def test_what_the_network_does_not_store_is_not_kept_and_its_neighbour_is(
    network: SmallNetwork, bad: Callable[[SmallNetwork], bytes]
) -> None:
    member, sender = network.members[0], network.members[1].address
    good = make_record(a_candidate(network))
    member.service.receive_late(sender, [bad(network), good.canonical])
    assert member.store.archive.load_late(0, 1 << 60) == [good]


def test_the_same_message_twice_is_one_candidate(network: SmallNetwork) -> None:
    member, sender = network.members[0], network.members[1].address
    good = make_record(a_candidate(network)).canonical
    member.service.receive_late(sender, [good, good])
    member.service.receive_late(sender, [good])
    assert member.rows(CANDIDATES) == [(1,)]


def test_more_than_a_page_at_once_is_refused(network: SmallNetwork) -> None:
    with pytest.raises(MalformedInput, match="at once"):
        network.members[0].service.receive_late(network.members[1].address, [b""] * (MAX_LATE_MESSAGES + 1))


def test_what_was_pushed_to_one_member_ends_in_everybodys_late_set(network: SmallNetwork) -> None:
    """Nobody but the member that was told has it; it tells nobody, and the late set's union finds it."""
    good = make_record(a_candidate(network))
    assert good.message.stream_id == STREAM
    network.members[2].service.receive_late(network.members[1].address, [good.canonical])
    network.run(lambda: all(m.states().endswith("|sealed") for m in network.members), limit_s=30)
    for member in network.members:
        assert member.late() == [good]
