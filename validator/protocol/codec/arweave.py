"""Arweave's transactions: signed bytes, signatures, and their JSON.

Everything here is pure: callers hand in bytes, or a function that reads them. Hash functions are named here,
beside ``hashing``, because the network fixes them: SHA-384 for the deep hash, SHA-256 for ids, addresses and trees.
Only transactions of format 2 with an RSA-4096 owner exist for us; format 1 and secp256k1 owners are refused.

Beside it: ``arweave_chunks`` (data, its tree and proofs), ``arweave_text``. Vectors: tests/vectors/arweave.json. The
rules are those of the reference node (ar_tx, ar_deep_hash).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from validator.protocol.codec.arweave_chunks import compute_inline_root, sha256
from validator.protocol.codec.arweave_text import (
    HASH_BYTES,
    decode_base64url,
    decode_integer,
    decode_json_object,
    decode_storage_id,
    encode_base64url,
    encode_storage_id,
)
from validator.protocol.errors import MalformedInput
from validator.protocol.model import StorageId

OWNER_BYTES = 512
SIGNATURE_BYTES = 512
ADDRESS_BYTES = 32
ANCHOR_BYTES = 48
MAX_TAG_BYTES = 2048
MAX_TAGS = 2048
MAX_HEADER_JSON_BYTES = 64 * 1024
"""A header without data: two 512-byte fields, 2 KiB of tags, names and base64 around them, with room."""
PUBLIC_EXPONENT = 65537

DeepHashable: TypeAlias = "bytes | Sequence[DeepHashable]"


def compute_address(owner: bytes) -> bytes:
    """Address of an owner: SHA-256 of its modulus, 32 bytes."""
    return sha256(owner)


def deep_hash(value: DeepHashable) -> bytes:
    """SHA-384 over a nested list of byte strings: 48 bytes.

    Kind and length of each element are hashed before its content, so two structures never share bytes.
    Depth is the caller's own: three in a transaction.
    """
    if isinstance(value, bytes):
        tagged = hashlib.sha384(b"blob%d" % len(value)).digest() + hashlib.sha384(value).digest()
        return hashlib.sha384(tagged).digest()
    state = hashlib.sha384(b"list%d" % len(value)).digest()
    for element in value:
        state = hashlib.sha384(state + deep_hash(element)).digest()
    return state


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction of format 2. Amounts in winston; ``signature`` and ``id`` are empty while unsigned.

    ``data`` is only what travels inside POST /tx; data in chunks is named by root and size.
    """

    owner: bytes
    last_tx: bytes
    reward: int
    tags: tuple[tuple[bytes, bytes], ...] = ()
    data_size: int = 0
    data_root: bytes = b""
    target: bytes = b""
    quantity: int = 0
    data: bytes = b""
    signature: bytes = b""
    id: StorageId = StorageId(b"")

    @property
    def address(self) -> bytes:
        return compute_address(self.owner)

    @property
    def tag_texts(self) -> tuple[tuple[str, str], ...]:
        """Tags as text. Raises MalformedInput where a tag is no UTF-8."""
        try:
            return tuple((name.decode(), value.decode()) for name, value in self.tags)
        except UnicodeDecodeError as error:
            raise MalformedInput("tags", "not UTF-8") from error


def encode_tags(tags: Sequence[tuple[str, str]]) -> tuple[tuple[bytes, bytes], ...]:
    """Text tags as bytes, within the limits of one transaction.

    Raises:
        MalformedInput: more than 2048 bytes of names and values, or an empty name or value.
    """
    encoded = tuple((name.encode(), value.encode()) for name, value in tags)
    if any(not name or not value for name, value in encoded):
        raise MalformedInput("tags", "a name or value is empty")
    total = sum(len(name) + len(value) for name, value in encoded)
    if total > MAX_TAG_BYTES:
        raise MalformedInput("tags", f"{total} bytes, at most {MAX_TAG_BYTES} fit")
    return encoded


def compute_signature_data(tx: Transaction) -> bytes:
    """The 48 bytes that the owner signs: deep hash over the fields, numbers as decimal ASCII."""
    return deep_hash(
        [
            b"2",
            tx.owner,
            tx.target,
            b"%d" % tx.quantity,
            b"%d" % tx.reward,
            tx.last_tx,
            [[name, value] for name, value in tx.tags],
            b"%d" % tx.data_size,
            tx.data_root,
        ]
    )


def attach_signature(tx: Transaction, signature: bytes) -> Transaction:
    """The signed transaction; its id is SHA-256 of the signature."""
    return replace(tx, signature=signature, id=StorageId(sha256(signature)))


def is_signature_valid(owner: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is RSA-PSS over SHA-256 of ``message``, with a salt of any length."""
    if len(owner) != OWNER_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.AUTO)
    try:
        key = rsa.RSAPublicNumbers(PUBLIC_EXPONENT, int.from_bytes(owner, "big")).public_key()
        key.verify(signature, message, scheme, hashes.SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


def compute_fault(tx: Transaction) -> str | None:
    """The node's code for the first rule that a transaction breaks, or None. Price and anchor's age are not judged.

    Source: ar_tx:do_verify; cases: invalid_transactions of the vectors.
    """
    if _are_fields_too_large(tx):
        return "tx_fields_too_large"
    if tx.target == tx.address:
        return "same_owner_as_target"
    if len(tx.target) != ADDRESS_BYTES and (tx.quantity > 0 or tx.target):
        return "invalid_target_length"
    if (tx.data_size == 0) != (tx.data_root == b""):
        return "tx_data_size_data_root_mismatch"
    if tx.id != sha256(tx.signature):
        return "tx_id_not_valid"
    if not is_signature_valid(tx.owner, compute_signature_data(tx), tx.signature):
        return "tx_signature_not_valid"
    if tx.data and (len(tx.data) != tx.data_size or compute_inline_root(tx.data) != tx.data_root):
        return "unknown_split"
    return None


def _are_fields_too_large(tx: Transaction) -> bool:
    return (
        len(tx.owner) > OWNER_BYTES
        or len(tx.signature) > SIGNATURE_BYTES
        or len(tx.last_tx) > ANCHOR_BYTES
        or len(tx.data_root) > HASH_BYTES
        or len(tx.target) > ADDRESS_BYTES
        or len(tx.tags) > MAX_TAGS
        or sum(len(name) + len(value) for name, value in tx.tags) > MAX_TAG_BYTES
    )


def verify_transaction(tx: Transaction, storage_id: StorageId | None = None) -> None:
    """Check all that ``compute_fault`` judges and, where given, that it is the transaction asked for.

    Raises:
        MalformedInput: names the node's code, or the id that was asked for.
    """
    if storage_id is not None and tx.id != storage_id:
        raise MalformedInput("id", f"another transaction than {encode_storage_id(storage_id)}")
    fault = compute_fault(tx)
    if fault is not None:
        raise MalformedInput("transaction", fault, code=fault)


def encode_transaction(tx: Transaction) -> dict[str, Any]:
    """The wire's JSON object: byte fields in base64url, numbers as text, tags as {name, value} in this order."""
    return {
        "format": 2,
        "id": encode_base64url(tx.id),
        "last_tx": encode_base64url(tx.last_tx),
        "owner": encode_base64url(tx.owner),
        "tags": [{"name": encode_base64url(name), "value": encode_base64url(value)} for name, value in tx.tags],
        "target": encode_base64url(tx.target),
        "quantity": str(tx.quantity),
        "data_size": str(tx.data_size),
        "data_root": encode_base64url(tx.data_root),
        "data": encode_base64url(tx.data),
        "reward": str(tx.reward),
        "signature": encode_base64url(tx.signature),
    }


def encode_transaction_json(tx: Transaction) -> str:
    """Text of POST /tx. Built once, saved, and only ever sent again as it is."""
    return json.dumps(encode_transaction(tx), separators=(",", ":"))


def decode_transaction(body: Mapping[str, Any], *, max_data_bytes: int = 0) -> Transaction:
    """Transaction of parsed wire JSON; unknown fields are ignored, signature and rules are not judged here.

    Lengths are bounded to twice what the rules allow, so that ``compute_fault`` can name a field that is too large.

    Raises:
        MalformedInput: another format, a field of the wrong kind, or a denomination (it would change what is signed).
    """
    if body.get("format") not in (2, "2") or isinstance(body.get("format"), bool):
        raise MalformedInput("format", "not 2")
    if body.get("denomination", "0") not in (0, "0"):
        raise MalformedInput("denomination", "not supported")
    return Transaction(
        owner=decode_base64url(body.get("owner"), "owner", max_bytes=2 * OWNER_BYTES),
        last_tx=decode_base64url(body.get("last_tx"), "last_tx", max_bytes=2 * ANCHOR_BYTES),
        reward=decode_integer(body.get("reward"), "reward"),
        tags=tuple(_decode_tags(body.get("tags"))),
        data_size=decode_integer(body.get("data_size"), "data_size"),
        data_root=decode_base64url(body.get("data_root"), "data_root", max_bytes=2 * HASH_BYTES),
        target=decode_base64url(body.get("target"), "target", max_bytes=2 * ADDRESS_BYTES),
        quantity=decode_integer(body.get("quantity"), "quantity"),
        data=decode_base64url(body.get("data", ""), "data", max_bytes=max_data_bytes) if max_data_bytes else b"",
        signature=decode_base64url(body.get("signature"), "signature", max_bytes=2 * SIGNATURE_BYTES),
        id=decode_storage_id(body.get("id")),
    )


def _decode_tags(tags: object) -> Iterator[tuple[bytes, bytes]]:
    if not isinstance(tags, list) or len(tags) > 2 * MAX_TAGS:
        raise MalformedInput("tags", "not a list, or a too long one")
    for index, tag in enumerate(tags):
        field = f"tags[{index}]"
        if not isinstance(tag, dict) or list(tag) != ["name", "value"]:
            raise MalformedInput(field, "not exactly {name, value}, in this order")
        yield (
            decode_base64url(tag["name"], f"{field}.name", max_bytes=2 * MAX_TAG_BYTES),
            decode_base64url(tag["value"], f"{field}.value", max_bytes=2 * MAX_TAG_BYTES),
        )


def decode_transaction_json(
    text: bytes | str, *, max_bytes: int = MAX_HEADER_JSON_BYTES, max_data_bytes: int = 0
) -> Transaction:
    """``decode_transaction`` from text. Raises MalformedInput."""
    return decode_transaction(
        decode_json_object(text, "transaction", max_bytes=max_bytes), max_data_bytes=max_data_bytes
    )
