"""Receipts: a consumer's signed promise to pay a broker for the bytes it has read so far.

A receipt travels as a message of the system stream. Its content is the JSON text

    [2,8,"<consumer>","<epoch>","<cumulativeBytes>","<maxPrice>","<signature>"]

and its publisher is the broker. White space of JSON is allowed between the elements, nothing else is: no escapes, no
upper-case hex, no leading zeros. A content of any other form is an ordinary message: stored, not charged. The
signature is the consumer's over EIP-712 ``Receipt``, domain LogStoreQuery 1 of the chain and its QueryManager.
Source: design, section 10. Vectors: tests/vectors/receipt.json.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from validator.protocol.codec.secp256k1 import Signer, recover_address
from validator.protocol.codec.typed_data import Domain, Struct, payload
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.hashing import keccak256
from validator.protocol.model import Address, ContentType, Digest, EncryptionType, Message, MessageType

SYSTEM_VERSION = 2
RECEIPT_TYPE = 8
MAX_RECEIPT_BYTES = 1024
"""Longer contents are no receipts; the longest one without white space has 290 bytes."""

_RECEIPT = Struct(
    "Receipt",
    (
        ("address", "consumer"),
        ("address", "broker"),
        ("uint64", "epoch"),
        ("uint64", "cumulativeBytes"),
        ("uint96", "maxPrice"),
    ),
)
_SPACE = rb"[ \t\r\n]*"
_ELEMENTS = (
    rb"2",
    rb"8",
    rb'"0x([0-9a-f]{40})"',
    rb'"(0|[1-9][0-9]{0,18})"',
    rb'"(0|[1-9][0-9]{0,18})"',
    rb'"(0|[1-9][0-9]{0,28})"',
    rb'"0x([0-9a-f]{130})"',
)
_FORM = re.compile(
    _SPACE
    + rb"\["
    + _SPACE
    + (_SPACE + rb"," + _SPACE).join(rb"(?:%b)" % element for element in _ELEMENTS)
    + _SPACE
    + rb"\]"
    + _SPACE
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """``consumer`` read ``cumulative_bytes`` from ``broker`` in ``epoch`` and pays ``max_price`` a MiB at most.

    The count begins anew with every epoch that the consumer signs for. Epoch and bytes are below 2^63; ``max_price`` in
    base units per MiB, below 2^96. ``signature`` is 65 bytes r, s, v.
    """

    consumer: Address
    broker: Address
    epoch: int
    cumulative_bytes: int
    max_price: int
    signature: bytes = b""

    def __post_init__(self) -> None:
        counts = (self.epoch, self.cumulative_bytes)
        if not all(0 <= count < 1 << 63 for count in counts) or not 0 <= self.max_price < 1 << 96:
            raise InvariantError("a receipt's numbers are out of range")


def receipt_domain(chain_id: int, query_manager: Address) -> Domain:
    return Domain("LogStoreQuery", "1", chain_id, query_manager)


def receipt_digest(receipt: Receipt, chain_id: int, query_manager: Address) -> Digest:
    """What the consumer signs."""
    return keccak256(_payload(receipt, chain_id, query_manager))


def _payload(receipt: Receipt, chain_id: int, query_manager: Address) -> bytes:
    return payload(
        receipt_domain(chain_id, query_manager),
        _RECEIPT,
        {
            "consumer": receipt.consumer,
            "broker": receipt.broker,
            "epoch": receipt.epoch,
            "cumulativeBytes": receipt.cumulative_bytes,
            "maxPrice": receipt.max_price,
        },
    )


def sign_receipt(
    key: Signer,
    broker: Address,
    epoch: int,
    cumulative_bytes: int,
    max_price: int,
    *,
    chain_id: int,
    query_manager: Address,
) -> Receipt:
    """A receipt of the consumer that ``key`` belongs to."""
    unsigned = Receipt(key.address, broker, epoch, cumulative_bytes, max_price)
    return replace(unsigned, signature=key.sign_payload(_payload(unsigned, chain_id, query_manager)))


def write_receipt(receipt: Receipt) -> bytes:
    """Content of the system message: compact JSON."""
    return (
        f'[{SYSTEM_VERSION},{RECEIPT_TYPE},"0x{receipt.consumer.hex()}","{receipt.epoch}","{receipt.cumulative_bytes}",'
        f'"{receipt.max_price}","0x{receipt.signature.hex()}"]'
    ).encode()


def parse_receipt(content: bytes, broker: Address) -> Receipt | None:
    """The receipt that ``broker`` published with this content; None if it has another form. Signature unchecked."""
    if len(content) > MAX_RECEIPT_BYTES:
        return None
    match = _FORM.fullmatch(content)
    if match is None:
        return None
    consumer, epoch, cumulative, price, signature = match.groups()
    if int(epoch) >= 1 << 63 or int(cumulative) >= 1 << 63 or int(price) >= 1 << 96:
        return None
    return Receipt(
        Address(bytes.fromhex(consumer.decode())),
        broker,
        int(epoch),
        int(cumulative),
        int(price),
        bytes.fromhex(signature.decode()),
    )


def verify_receipt(receipt: Receipt, chain_id: int, query_manager: Address) -> bool:
    """Whether the consumer signed it: recovery, v included, gives the consumer."""
    try:
        signer = recover_address(receipt_digest(receipt, chain_id, query_manager), receipt.signature)
    except MalformedInput:
        return False
    return signer == receipt.consumer


def receipt_of(message: Message, chain_id: int, query_manager: Address) -> Receipt | None:
    """The receipt that a message of the system stream carries, form and consumer's signature checked; else None.

    The caller knows that the message is of the system stream and validly signed by its publisher.
    """
    if (
        message.message_type is not MessageType.MESSAGE
        or message.content_type is not ContentType.JSON
        or message.encryption_type is not EncryptionType.NONE
        or len(message.publisher_id) != 20
    ):
        return None
    receipt = parse_receipt(message.content, Address(message.publisher_id))
    if receipt is None or not verify_receipt(receipt, chain_id, query_manager):
        return None
    return receipt
