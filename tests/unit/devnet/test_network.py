"""What the lossy network may do to one message at one broker."""

from __future__ import annotations

from random import Random

from tests.builders import a_key, a_message
from validator.devnet.network import LinkFaults, Network, parcel_of, parcel_of_line
from validator.protocol.codec.legacy_array import read_legacy_array, write_legacy_array
from validator.protocol.codec.protobuf import read_protobuf
from validator.protocol.codec.received import ARRAY, PROTOBUF
from validator.protocol.model import SignatureType

BATCH_MS = 70


def draws(faults: LinkFaults, count: int = 4000, late: bool = False) -> list[list[int]]:
    chance = Random(5)
    return [faults.draw(chance, BATCH_MS, late) for _ in range(count)]


def test_a_perfect_network_delivers_once_at_once() -> None:
    drawn = draws(LinkFaults(loss=0, duplicates=0, reordered=0, late=0, late_everywhere=0))
    assert all(len(delays) == 1 and delays[0] <= 20 for delays in drawn)


def test_loss_and_duplicates_come_about_as_often_as_said() -> None:
    drawn = draws(LinkFaults(loss=0.2, duplicates=0.1, late=0))
    lost = sum(not delays for delays in drawn)
    twice = sum(len(delays) == 2 for delays in drawn)
    assert 600 < lost < 1000
    assert 220 < twice < 420


def test_no_delivery_is_due_later_than_the_longest_delay_less_two_batches() -> None:
    for longest in (0, 100, 140, 16_000):
        faults = LinkFaults(late=0.5, reordered=1, reorder_ms=9999, max_delay_ms=longest)
        assert max(delay for delays in draws(faults) for delay in delays) <= max(0, longest - 2 * BATCH_MS)


def test_a_message_that_is_late_everywhere_is_late_at_each_broker() -> None:
    drawn = draws(LinkFaults(loss=0, max_delay_ms=16_000), late=True)
    assert min(delay for delays in drawn for delay in delays) >= (16_000 - 2 * BATCH_MS) // 4


def test_brokers_fare_differently_and_one_seed_makes_one_fate() -> None:
    def fate(seed: str) -> list[list[tuple[int, int, bytes]]]:
        network = Network([(f"http://{name}", ARRAY) for name in "abc"], LinkFaults(loss=0.3), seed)
        for number in range(200):
            network.send({ARRAY: b"%d" % number}, 1000)
        return [sorted(route.due) for route in network._routes]

    assert fate("x") == fate("x")
    assert fate("x") != fate("y")
    reached = [{line for _, _, line in route} for route in fate("x")]
    assert reached[0] != reached[1] != reached[2]
    assert 120 < len(reached[0]) < 160


def test_each_broker_gets_a_message_in_its_own_form_or_not_at_all() -> None:
    network = Network([("http://old", ARRAY), ("http://new", PROTOBUF)], LinkFaults(loss=0, duplicates=0), "x")
    old, new = a_message(a_key(1)), a_message(a_key(1), signature_type=SignatureType.ECDSA_SECP256K1_EVM)
    for message in (old, new):
        network.send(parcel_of(message), 1000)
    at_old, at_new = ([data for _, _, data in sorted(route.due)] for route in network._routes)
    assert [read_legacy_array(data) for data in at_old] == [old]
    assert {read_protobuf(data) for data in at_new} == {old, new}


def test_a_line_that_somebody_else_wrote_travels_in_both_forms_where_it_can_be_read() -> None:
    message = a_message(a_key(1))
    line = write_legacy_array(message)
    assert parcel_of_line(line) == parcel_of(message)
    assert parcel_of_line(b"[99]") == {ARRAY: b"[99]"}
