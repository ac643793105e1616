from __future__ import annotations

from dataclasses import replace

import pytest

from tests.wallet import Account, encode_typed_data
from validator.net.signed.signing import (
    SENDER,
    Channel,
    Stamp,
    network_digest,
    read_sender,
    read_stamp,
    sign,
    verify,
    write_stamp,
)
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import hash_body
from validator.protocol.model import Address, Digest
from validator.protocol.parameters import ConsumerUrls, Contracts, Network, ParameterSet

CONTEXT = SigningContext(31337, Address(b"\x07" * 20))
NETWORK = Digest(b"\x09" * 32)
KEY = SigningKey(b"\x01" * 32)
CHANNEL = Channel("Peers", CONTEXT, NETWORK)
STAMP = Stamp(KEY.address, 1 << 62, 3, 1_700_000_000_000)
DOMAIN = {
    "name": "LogStorePeers",
    "version": "1",
    "chainId": 31337,
    "verifyingContract": "0x" + CONTEXT.report_manager.hex(),
}


def by_a_wallet(types: dict[str, list[dict[str, str]]], message: dict[str, object]) -> bytes:
    """Signature of an ordinary wallet library over the same typed data."""
    signable = encode_typed_data(domain_data=DOMAIN, message_types=types, message_data=message)
    return bytes(Account.sign_message(signable, KEY.secret_hex()).signature)


def test_a_request_is_signed_as_a_wallet_signs_it() -> None:
    recipient = Address(b"\x05" * 20)
    fields = "bytes32 bodyHash,string path,address recipient,uint64 bootId,uint64 counter,uint64 timeMs,bytes32 network"
    types = {"Request": [dict(zip(("type", "name"), f.split(), strict=True)) for f in fields.split(",")]}
    message = {
        "bodyHash": hash_body(b"body"),
        "path": "/v1/gossip",
        "recipient": "0x" + recipient.hex(),
        "bootId": STAMP.boot_id,
        "counter": STAMP.counter,
        "timeMs": STAMP.time_ms,
        "network": NETWORK,
    }
    payload = CHANNEL.request_payload(STAMP, "/v1/gossip", recipient, b"body")
    assert sign(payload, KEY) == "0x" + by_a_wallet(types, message).hex()


def test_an_answer_is_signed_as_a_wallet_signs_it() -> None:
    request = Digest(b"\x04" * 32)
    fields = "bytes32 requestDigest,bytes32 bodyHash,uint16 status"
    types = {"Response": [dict(zip(("type", "name"), f.split(), strict=True)) for f in fields.split(",")]}
    message = {"requestDigest": request, "bodyHash": hash_body(b"answer"), "status": 200}
    payload = CHANNEL.response_payload(request, 200, b"answer")
    assert sign(payload, KEY) == "0x" + by_a_wallet(types, message).hex()


def test_a_signature_counts_for_its_signer_alone() -> None:
    payload = CHANNEL.response_payload(NETWORK, 200, b"")
    verify(payload, sign(payload, KEY), KEY.address)
    with pytest.raises(MalformedInput, match="named member"):
        verify(payload, sign(payload, KEY), CONTEXT.report_manager)
    with pytest.raises(MalformedInput, match=r"named member|no public key"):
        verify(CHANNEL.response_payload(NETWORK, 201, b""), sign(payload, KEY), KEY.address)


def test_stamps_survive_the_headers() -> None:
    headers = dict(write_stamp(STAMP))
    assert read_stamp(headers) == STAMP
    assert read_sender(headers) == KEY.address


@pytest.mark.parametrize("text", ["", "-1", "+1", "01", " 1", "1.0", "1e3", "١", str(1 << 63), "9" * 100])
def test_numbers_in_headers_have_one_form(text: str) -> None:
    for name in dict(write_stamp(STAMP)):
        if name != SENDER:
            with pytest.raises(MalformedInput) as caught:
                read_stamp({**dict(write_stamp(STAMP)), name: text})
            assert caught.value.field == name


def test_every_part_of_a_networks_identity_counts() -> None:
    contracts = Contracts(*(Address(bytes([n]) * 20) for n in range(1, 7)))
    network = Network("n", 1, 5, Digest(b"\x01" * 32), contracts, 0, (ParameterSet(first_epoch=0, epoch_windows=1),))
    others = [
        replace(network, chain_id=2),
        replace(network, deployment_parent_hash=Digest(b"\x02" * 32)),
        *(
            replace(network, contracts=replace(contracts, **{name: Address(bytes(20))}))
            for name in ("token", "node_manager", "store_manager", "query_manager", "report_manager", "stream_registry")
        ),
    ]
    assert len({network_digest(n) for n in [network, *others]}) == 9
    assert network_digest(replace(network, config_count=3, genesis_ms=7)) == network_digest(network)
    elsewhere = replace(network, consumers=ConsumerUrls(("https://rpc.example",), ("https://weave.example",)))
    assert network_digest(elsewhere) == network_digest(network)
