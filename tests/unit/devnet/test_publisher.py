"""Publishers sign what Streamr's clients would sign; forgeries are what they are called."""

from __future__ import annotations

import json

import pytest

from validator.devnet.network import parcel_of
from validator.devnet.publisher import FORGED_KINDS, MessageChain, Publishers, StreamConfig
from validator.devnet.signers import PublisherConfig, Scheme, make_signer
from validator.protocol.codec.conversion import normalise_stream_id
from validator.protocol.codec.legacy_array import read_legacy_array
from validator.protocol.codec.message import make_record
from validator.protocol.codec.protobuf import read_protobuf
from validator.protocol.codec.received import ARRAY, PROTOBUF
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.signatures import VALID, resolve_erc1271, verify_message
from validator.protocol.errors import ConfigError
from validator.protocol.model import ContentType, EncryptionType, MessageRef, Reason, SignatureType

KEYS = [SigningKey(bytes([number]) * 32) for number in (1, 2, 3)]
WALLET = "0x" + "dd" * 20
PUBLISHERS = [
    PublisherConfig(f"0x{number:064x}", scheme, WALLET if scheme is Scheme.ERC_1271 else None)
    for number, scheme in enumerate(Scheme, 1)
]
STREAMS = [
    StreamConfig("0x" + "cc" * 20 + "/a", 3, PUBLISHERS[:3]),
    StreamConfig("0x" + "cc" * 20 + "/b", 1, PUBLISHERS[3:]),
]


def test_a_chain_refers_back_and_numbers_messages_of_one_millisecond() -> None:
    chain = MessageChain(KEYS[0], "s.eth/a", 4, "c" * 20)
    made = [chain.next(ms, b"{}") for ms in (100, 100, 99, 150)]
    assert [(m.timestamp_ms, m.sequence_number) for m in made] == [(100, 0), (100, 1), (100, 2), (150, 0)]
    assert [m.prev for m in made] == [None, MessageRef(100, 0), MessageRef(100, 1), MessageRef(100, 2)]


def test_messages_are_valid_varied_and_survive_the_wire_byte_for_byte() -> None:
    publishers = Publishers(STREAMS, 7)
    made = [publishers.next(1_700_000_000_000 + number) for number in range(600)]
    for message in made:
        parcel = parcel_of(message)
        assert read_protobuf(parcel[PROTOBUF]) == message
        legacy = message.signature_type is SignatureType.ECDSA_SECP256K1_LEGACY
        assert (ARRAY in parcel) is legacy
        if legacy:
            assert read_legacy_array(parcel[ARRAY]) == message
            assert b"\n" not in parcel[ARRAY]
        assert resolve_erc1271(message, True) is VALID
        assert 200 <= len(message.content) <= 1516
        assert len(message.msg_chain_id) == 20
        if message.content_type is ContentType.JSON and message.encryption_type is EncryptionType.NONE:
            json.loads(message.content)
    assert {m.stream_part for m in made} == {(STREAMS[0].id, n) for n in range(3)} | {(STREAMS[1].id, 0)}
    assert {m.publisher_id for m in made} == {make_signer(publisher).publisher_id for publisher in PUBLISHERS}
    assert any(not m.content.isascii() for m in made)
    assert len({make_record(m).identity for m in made}) == 600
    assert all(normalise_stream_id(m.stream_id) == m.stream_id for m in made)
    kinds = {(m.signature_type, m.encryption_type) for m in made}
    assert {kind for kind, _ in kinds} == {scheme.signature_type for scheme in Scheme}
    assert {encryption for _, encryption in kinds} == set(EncryptionType)
    assert any(m.new_group_key is not None for m in made)
    assert any(m.content_type is ContentType.BINARY for m in made)


def test_publishers_have_keys_of_every_size_that_clients_make() -> None:
    sizes = {publisher.scheme: len(make_signer(publisher).publisher_id) for publisher in PUBLISHERS}
    assert sizes == {
        Scheme.LEGACY: 20,
        Scheme.EVM: 20,
        Scheme.ERC_1271: 20,
        Scheme.P256: 33,
        Scheme.P256_UNCOMPRESSED: 65,
        Scheme.ML_DSA_87: 2592,
    }


def test_a_wallet_signs_by_the_key_of_its_owner() -> None:
    publisher = PUBLISHERS[list(Scheme).index(Scheme.ERC_1271)]
    message = MessageChain(make_signer(publisher), "s.eth/a", 0, "c" * 20).next(100, b"{}")
    assert message.publisher_id.hex() == WALLET[2:]
    assert verify_message(message) is Reason.ERC1271_UNKNOWN


def test_one_seed_makes_one_sequence() -> None:
    def payloads(seed: int) -> list[bytes]:
        publishers = Publishers(STREAMS, seed)
        return [make_record(publishers.next(1_700_000_000_000 + n)).signed_digest for n in range(40)]

    assert payloads(7) == payloads(7)  # a signature of ML-DSA is another one each time
    assert payloads(7) != payloads(8)


def test_forgeries_are_what_they_are_called() -> None:
    publishers = Publishers(STREAMS, 7)
    allowed = {make_signer(publisher).publisher_id for publisher in PUBLISHERS}
    seen = set()
    for number in range(200):
        true = publishers.next(1_700_000_000_000 + number)
        kind, forged = publishers.forge(true)
        seen.add((kind, forged.signature_type))
        forged = read_protobuf(parcel_of(forged)[PROTOBUF])
        verdict = resolve_erc1271(forged, False)  # the wallet finds another signer than its owner
        if kind == "unknown_publisher":
            assert verdict is VALID
            assert forged.publisher_id not in allowed
        else:
            assert verdict is Reason.BAD_SIGNATURE
            assert forged.message_id == true.message_id
            assert (forged.content == true.content) is (kind == "wrong_signature")
            assert (forged.signature == true.signature) is (kind == "altered_content")
    kinds = {scheme.signature_type for scheme in Scheme}
    assert {kind for kind, _ in seen} == set(FORGED_KINDS)
    assert {signature_type for _, signature_type in seen} == kinds


@pytest.mark.parametrize(
    "stream",
    [
        StreamConfig("s.eth/a", 1, []),
        StreamConfig("s.eth/a", 0, PUBLISHERS[:1]),
        StreamConfig("s.eth/a", 1, [PublisherConfig("0x12")]),
        StreamConfig("s.eth/a", 1, [PublisherConfig("0x" + "11" * 32, Scheme.ERC_1271)]),
        StreamConfig("s.eth/a", 1, [PublisherConfig("0x" + "11" * 32, Scheme.EVM, WALLET)]),
        StreamConfig("s.eth/a", 1, [PublisherConfig("0x" + "11" * 32, Scheme.ERC_1271, "0x12")]),
    ],
)
def test_a_stream_without_partitions_or_keys_is_refused(stream: StreamConfig) -> None:
    with pytest.raises(ConfigError):
        Publishers([stream], 1)
