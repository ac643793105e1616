"""What is signed of requests and answers, and the headers that carry it.

    Request(bytes32 bodyHash,string path,address recipient,uint64 bootId,uint64 counter,uint64 timeMs,bytes32 network)
    Response(bytes32 requestDigest,bytes32 bodyHash,uint16 status)

EIP-712 domain ("LogStore<purpose>", "1", chain id, ReportManager): "Peers" among validators, "Brokers" among brokers.
The recipient keeps a request from being shown to another node, the network digest from another network; a boot id is
drawn at random by each process that sends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from validator.protocol.codec.secp256k1 import Signer, is_low_s, recover_address
from validator.protocol.codec.statement import SigningContext
from validator.protocol.codec.typed_data import Struct, payload
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import hash_body, hash_labelled, keccak256
from validator.protocol.model import Address, Digest
from validator.protocol.parameters import Network

SENDER, BOOT, COUNTER, TIME, SIGNATURE = (
    "logstore-sender",
    "logstore-boot",
    "logstore-counter",
    "logstore-time",
    "logstore-signature",
)

_REQUEST = Struct(
    "Request",
    (
        ("bytes32", "bodyHash"),
        ("string", "path"),
        ("address", "recipient"),
        ("uint64", "bootId"),
        ("uint64", "counter"),
        ("uint64", "timeMs"),
        ("bytes32", "network"),
    ),
)
_RESPONSE = Struct("Response", (("bytes32", "requestDigest"), ("bytes32", "bodyHash"), ("uint16", "status")))
_HEX_ADDRESS = re.compile(r"0x[0-9a-f]{40}", re.ASCII)
_HEX_SIGNATURE = re.compile(r"0x[0-9a-f]{130}", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who sends a request, when, and what makes it unique: (sender, boot id, counter). Numbers are below 2^63."""

    sender: Address
    boot_id: int
    counter: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Channel:
    """Among whom requests go: a purpose, which names the domain of all that they sign, and a network."""

    purpose: str
    context: SigningContext
    network: Digest

    def request_payload(self, stamp: Stamp, path: str, recipient: Address, body: bytes) -> bytes:
        """What is signed of a request; its keccak-256 is the request's digest."""
        return payload(
            self.context.domain(self.purpose),
            _REQUEST,
            {
                "bodyHash": hash_body(body),
                "path": path,
                "recipient": recipient,
                "bootId": stamp.boot_id,
                "counter": stamp.counter,
                "timeMs": stamp.time_ms,
                "network": self.network,
            },
        )

    def response_payload(self, request: Digest, status: int, body: bytes) -> bytes:
        """What is signed of the answer to the request of that digest."""
        return payload(
            self.context.domain(self.purpose),
            _RESPONSE,
            {"requestDigest": request, "bodyHash": hash_body(body), "status": status},
        )


def network_digest(network: Network) -> Digest:
    """Names a network, whatever its epoch: chain, the block before the deployment, contracts."""
    c = network.contracts
    return hash_labelled(
        "logstore/network/1",
        network.chain_id.to_bytes(8, "big"),
        network.deployment_parent_hash,
        c.token,
        c.node_manager,
        c.store_manager,
        c.query_manager,
        c.report_manager,
        c.stream_registry,
    )


def sign(what: bytes, key: Signer) -> str:
    """Signature over a payload as a header value."""
    return "0x" + key.sign_payload(what).hex()


def verify(what: bytes, signature: str, signer: Address) -> None:
    """Raises MalformedInput, field "signature", unless ``signer`` signed the payload."""
    if not _HEX_SIGNATURE.fullmatch(signature):
        raise MalformedInput("signature", "not 0x and 130 lower-case hex digits")
    raw = bytes.fromhex(signature[2:])
    if not is_low_s(raw) or recover_address(keccak256(what), raw) != signer:
        raise MalformedInput("signature", "not of the named member")


def write_stamp(stamp: Stamp) -> list[tuple[str, str]]:
    return [
        (SENDER, "0x" + stamp.sender.hex()),
        (BOOT, str(stamp.boot_id)),
        (COUNTER, str(stamp.counter)),
        (TIME, str(stamp.time_ms)),
    ]


def read_sender(headers: Mapping[str, str]) -> Address:
    """Sender that the headers name, not yet believed. Raises MalformedInput."""
    text = headers.get(SENDER, "")
    if not _HEX_ADDRESS.fullmatch(text):
        raise MalformedInput(SENDER, "missing, or not 0x and 40 lower-case hex digits")
    return Address(bytes.fromhex(text[2:]))


def read_stamp(headers: Mapping[str, str]) -> Stamp:
    """Raises MalformedInput naming the header."""
    return Stamp(read_sender(headers), *(_read_number(headers, name) for name in (BOOT, COUNTER, TIME)))


def _read_number(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name, "")
    if not _NUMBER.fullmatch(text) or int(text) >= 1 << 63:
        raise MalformedInput(name, "missing, or not a decimal number below 2^63")
    return int(text)
