"""Publishers sign what Streamr's clients would sign; forgeries are what they are called."""

from __future__ import annotations

import json

import pytest

from validator.codec.legacy_array import read_legacy_array, write_legacy_array
from validator.codec.message import make_record, normalise_stream_id
from validator.codec.secp256k1 import SigningKey
from validator.codec.signatures import VALID, verify_message
from validator.devnet.publisher import FORGED_KINDS, MessageChain, Publishers, StreamConfig
from validator.errors import ConfigError
from validator.model import MessageRef, Reason

KEYS = [SigningKey(bytes([number]) * 32) for number in (1, 2, 3)]
STREAMS = [
    StreamConfig("0x" + "cc" * 20 + "/a", 3, [KEYS[0].secret_hex(), KEYS[1].secret_hex()]),
    StreamConfig("0x" + "cc" * 20 + "/b", 1, [KEYS[2].secret_hex()]),
]


def test_a_chain_refers_back_and_numbers_messages_of_one_millisecond() -> None:
    chain = MessageChain(KEYS[0], "s.eth/a", 4, "c" * 20)
    made = [chain.next(ms, b"{}") for ms in (100, 100, 99, 150)]
    assert [(m.timestamp_ms, m.sequence_number) for m in made] == [(100, 0), (100, 1), (100, 2), (150, 0)]
    assert [m.prev for m in made] == [None, MessageRef(100, 0), MessageRef(100, 1), MessageRef(100, 2)]


def test_messages_are_valid_varied_and_survive_the_wire_byte_for_byte() -> None:
    publishers = Publishers(STREAMS, 7)
    made = [publishers.next(1_700_000_000_000 + number) for number in range(300)]
    for message in made:
        line = write_legacy_array(message)
        again = read_legacy_array(line)
        assert again == message
        assert verify_message(again) is VALID
        assert 200 <= len(message.content) <= 1500
        assert len(message.msg_chain_id) == 20
        assert b"\n" not in line
        json.loads(message.content)
    assert {m.stream_part for m in made} == {(STREAMS[0].id, n) for n in range(3)} | {(STREAMS[1].id, 0)}
    assert {m.publisher_id for m in made} == {key.address for key in KEYS}
    assert any(not m.content.isascii() for m in made)
    assert len({make_record(m).identity for m in made}) == 300
    assert all(normalise_stream_id(m.stream_id) == m.stream_id for m in made)


def test_one_seed_makes_one_sequence() -> None:
    first, second, other = (Publishers(STREAMS, seed) for seed in (7, 7, 8))
    times = range(1_700_000_000_000, 1_700_000_000_020)
    assert [first.next(ms) for ms in times] == [second.next(ms) for ms in times]
    assert [Publishers(STREAMS, 7).next(ms) for ms in times] != [other.next(ms) for ms in times]


def test_forgeries_are_what_they_are_called() -> None:
    publishers = Publishers(STREAMS, 7)
    allowed = {key.address for key in KEYS}
    seen = set()
    for number in range(30):
        true = publishers.next(1_700_000_000_000 + number)
        kind, forged = publishers.forge(true)
        seen.add(kind)
        forged = read_legacy_array(write_legacy_array(forged))
        verdict = verify_message(forged)
        if kind == "unknown_publisher":
            assert verdict is VALID
            assert forged.publisher_id not in allowed
        else:
            assert verdict is Reason.BAD_SIGNATURE
            assert forged.message_id == true.message_id
            assert (forged.content == true.content) is (kind == "wrong_signature")
            assert (forged.signature == true.signature) is (kind == "altered_content")
    assert seen == set(FORGED_KINDS)


@pytest.mark.parametrize(
    "stream",
    [
        StreamConfig("s.eth/a", 1, []),
        StreamConfig("s.eth/a", 0, [KEYS[0].secret_hex()]),
        StreamConfig("s.eth/a", 1, ["0x12"]),
    ],
)
def test_a_stream_without_partitions_or_keys_is_refused(stream: StreamConfig) -> None:
    with pytest.raises(ConfigError):
        Publishers([stream], 1)
