"""ANS-104: data items that are signed on their own, and bundles of them inside one transaction. Read, never written.

| 2 B type | signature | owner | 1 B (+ 32 B) target | 1 B (+ 32 B) anchor | 8 B tags | 8 B tag bytes | tags | data |

Integers are little-endian, tags an Avro array of (name, value). The id is SHA-256 of the signature. What lax libraries
let pass is refused (wrong counts, presence bytes, names, recovery values, ids, bytes behind the end), since each of
these gives one item a second form. The signed bytes name the signature type and hold the tags as they are encoded: the
standard's text differs there from every library. Vectors: tests/vectors/ans104.json.

No bundle of ours is one of these (docs/decisions/0027): the gateways we ask list them beside transactions, so the
development gateway does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from validator.protocol.codec.arweave import deep_hash, is_signature_valid
from validator.protocol.codec.secp256k1 import address_of_public_key, is_low_s, recover_address
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import keccak256
from validator.protocol.model import Digest, StorageId

MAX_TAGS = 128
MAX_NAME_BYTES = 1024
MAX_VALUE_BYTES = 3072
MAX_TAG_BYTES = 4096
ENTRY_BYTES = 64
COUNT_BYTES = 32
_VARINT_BYTES = 10

Tags = tuple[tuple[bytes, bytes], ...]


class ItemSignature(IntEnum):
    """Signature types of data items, as the standard numbers them."""

    ARWEAVE = 1
    ED25519 = 2
    ETHEREUM = 3
    SOLANA_HEX = 4
    ETHEREUM_TYPED = 7


_LENGTHS = {
    ItemSignature.ARWEAVE: (512, 512),
    ItemSignature.ED25519: (64, 32),
    ItemSignature.ETHEREUM: (65, 65),
    ItemSignature.SOLANA_HEX: (64, 32),
    ItemSignature.ETHEREUM_TYPED: (65, 42),
}
"""Bytes of signature and owner."""


@dataclass(frozen=True, slots=True)
class DataItem:
    """One item. ``target`` and ``anchor`` have 32 bytes or none; ``tag_bytes`` is Avro."""

    signature_type: ItemSignature
    owner: bytes
    tag_bytes: bytes
    data: bytes
    target: bytes
    anchor: bytes
    signature: bytes

    @property
    def id(self) -> StorageId:
        return StorageId(hashlib.sha256(self.signature).digest())

    @property
    def tags(self) -> Tags:
        return decode_avro_tags(self.tag_bytes)


# --- tags -----------------------------------------------------------------------------------------


def decode_avro_tags(data: bytes) -> Tags:
    """Tags of an Avro array, in one or several blocks.

    Raises:
        MalformedInput: too long, too many, an empty or too long name or value, or bytes behind the end.
    """
    if len(data) > MAX_TAG_BYTES:
        raise MalformedInput("tags", f"{len(data)} bytes, at most {MAX_TAG_BYTES} fit")
    if not data:
        return ()
    reader = _Reader(data, "tags")
    tags: list[tuple[bytes, bytes]] = []
    while count := reader.read_varint():
        if count < 0:
            block_bytes, count = reader.read_varint(), -count
            block_end = reader.at + block_bytes
        else:
            block_end = -1
        if len(tags) + count > MAX_TAGS:
            raise MalformedInput("tags", f"more than {MAX_TAGS}")
        for _ in range(count):
            name = reader.read(reader.read_varint())
            tags.append((name, reader.read(reader.read_varint())))
        if block_end not in (-1, reader.at):
            raise MalformedInput("tags", "a block has another length than it says")
    if reader.at != len(data):
        raise MalformedInput("tags", f"{len(data) - reader.at} bytes behind the end")
    _check_tags(tags)
    return tuple(tags)


def _check_tags(tags: Sequence[tuple[bytes, bytes]]) -> None:
    if len(tags) > MAX_TAGS:
        raise MalformedInput("tags", f"{len(tags)}, at most {MAX_TAGS} fit")
    for index, (name, value) in enumerate(tags):
        if not 1 <= len(name) <= MAX_NAME_BYTES:
            raise MalformedInput(f"tags[{index}].name", f"{len(name)} bytes, 1 to {MAX_NAME_BYTES} belong")
        if not 1 <= len(value) <= MAX_VALUE_BYTES:
            raise MalformedInput(f"tags[{index}].value", f"{len(value)} bytes, 1 to {MAX_VALUE_BYTES} belong")


class _Reader:
    """Reads bytes from the front; every shortage is a MalformedInput that names ``what``."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.what = what
        self.at = 0

    def read(self, size: int) -> bytes:
        if not 0 <= size <= len(self.data) - self.at:
            raise MalformedInput(self.what, f"ends before {size} bytes at {self.at}")
        self.at += size
        return self.data[self.at - size : self.at]

    def read_integer(self, size: int) -> int:
        return int.from_bytes(self.read(size), "little")

    def read_varint(self) -> int:
        value = 0
        for shift in range(0, 7 * _VARINT_BYTES, 7):
            byte = self.read(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
        raise MalformedInput(self.what, "a number of more than 64 bits")

    def read_optional(self, field: str) -> bytes:
        presence = self.read(1)[0]
        if presence > 1:
            raise MalformedInput(field, f"presence byte {presence}, 0 or 1 belong")
        return self.read(32) if presence else b""


# --- items ----------------------------------------------------------------------------------------


def compute_signature_data(item: DataItem) -> bytes:
    """The 48 bytes behind every kind of signature. Absent target and anchor are empty."""
    kind = b"%d" % item.signature_type
    return deep_hash([b"dataitem", b"1", kind, item.owner, item.target, item.anchor, item.tag_bytes, item.data])


def compute_signed_message(item: DataItem) -> bytes:
    """What the signer of this type signs.

    The 48 bytes (types 1 and 2), their lower-case hex text (4), or a 32-byte digest over them for secp256k1:
    EIP-191 (3), EIP-712 with a domain of name and version only (7).
    """
    data = compute_signature_data(item)
    if item.signature_type is ItemSignature.SOLANA_HEX:
        return data.hex().encode()
    if item.signature_type is ItemSignature.ETHEREUM:
        return keccak256(b"\x19Ethereum Signed Message:\n%d" % len(data) + data)
    if item.signature_type is ItemSignature.ETHEREUM_TYPED:
        domain = keccak256(
            keccak256(b"EIP712Domain(string name,string version)") + keccak256(b"Bundlr") + keccak256(b"1")
        )
        struct = keccak256(
            keccak256(b"Bundlr(bytes Transaction hash,address address)")
            + keccak256(data)
            + bytes(12)
            + _parse_owner(item)
        )
        return keccak256(b"\x19\x01" + domain + struct)
    return data


def _parse_owner(item: DataItem) -> bytes:
    """20 bytes of an owner that is an address in text. Raises MalformedInput."""
    text = item.owner.decode("ascii", errors="replace")
    try:
        address = bytes.fromhex(text[2:])
    except ValueError:
        address = b""
    if len(address) != 20 or text != f"0x{address.hex()}":
        raise MalformedInput("owner", "no lower-case address")
    return address


def decode_data_item(raw: bytes) -> DataItem:
    """An item with its signature verified.

    Raises:
        MalformedInput: too short, an unknown type, a length, count or presence byte that is wrong, or a bad signature.
    """
    reader = _Reader(raw, "data item")
    number = reader.read_integer(2)
    try:
        kind = ItemSignature(number)
    except ValueError as error:
        raise MalformedInput("signature_type", f"{number} is unknown") from error
    signature_bytes, owner_bytes = _LENGTHS[kind]
    signature, owner = reader.read(signature_bytes), reader.read(owner_bytes)
    target, anchor = reader.read_optional("target"), reader.read_optional("anchor")
    count, size = reader.read_integer(8), reader.read_integer(8)
    tag_bytes = reader.read(size)
    found = len(decode_avro_tags(tag_bytes))
    if count != found:
        raise MalformedInput("tags", f"{found} where the header says {count}")
    item = DataItem(kind, owner, tag_bytes, raw[reader.at :], target, anchor, signature)
    if not is_item_signature_valid(item):
        raise MalformedInput("signature", "does not fit the item")
    return item


def is_item_signature_valid(item: DataItem) -> bool:
    """Whether the owner signed the item. For secp256k1 v must recover the owner and s be low: one id per signing."""
    try:
        message = compute_signed_message(item)
        if item.signature_type is ItemSignature.ARWEAVE:
            return is_signature_valid(item.owner, message, item.signature)
        if item.signature_type in (ItemSignature.ED25519, ItemSignature.SOLANA_HEX):
            Ed25519PublicKey.from_public_bytes(item.owner).verify(item.signature, message)
            return True
        typed = item.signature_type is ItemSignature.ETHEREUM_TYPED
        expected = _parse_owner(item) if typed else address_of_public_key(item.owner)
        is_key_whole = typed or item.owner[:1] == b"\x04"
        signer = recover_address(Digest(message), item.signature)
    except (MalformedInput, InvalidSignature, ValueError):
        return False
    return is_key_whole and is_low_s(item.signature) and signer == expected


# --- bundles --------------------------------------------------------------------------------------


def decode_bundle(raw: bytes) -> tuple[DataItem, ...]:
    """Items of a bundle, every signature and id checked.

    Raises:
        MalformedInput: the header does not describe the bytes exactly, or an item is not sound.
    """
    reader = _Reader(raw, "bundle")
    count = reader.read_integer(COUNT_BYTES)
    if count > (len(raw) - COUNT_BYTES) // ENTRY_BYTES:
        raise MalformedInput("bundle.count", f"{count} items do not fit")
    entries = [(reader.read_integer(32), reader.read(32)) for _ in range(count)]
    items: list[DataItem] = []
    for index, (size, item_id) in enumerate(entries):
        item = decode_data_item(reader.read(size))
        if item.id != item_id:
            raise MalformedInput(f"bundle.items[{index}].id", "not the hash of the item's signature")
        items.append(item)
    if reader.at != len(raw):
        raise MalformedInput("bundle", f"{len(raw) - reader.at} bytes behind the last item")
    return tuple(items)
