"""Bodies of the 1.0 key exchange: requests and responses, and the bytes their signatures cover.

They travel but are not stored; they are read so that every signature can be judged. The signature covers the
members one after the other, not the protobuf bytes, and not the encryption type.
"""

from __future__ import annotations

from dataclasses import dataclass

from validator.protocol.codec import wire
from validator.protocol.errors import MalformedInput

MAX_KEYS = 1024


@dataclass(frozen=True, slots=True)
class GroupKeyRequest:
    request_id: str
    recipient_id: bytes
    public_key: bytes
    group_key_ids: tuple[str, ...]
    encryption_type: int

    def signed_part(self) -> bytes:
        return self.request_id.encode() + self.recipient_id + self.public_key + "".join(self.group_key_ids).encode()


@dataclass(frozen=True, slots=True)
class GroupKeyResponse:
    request_id: str
    recipient_id: bytes
    group_keys: tuple[tuple[str, bytes], ...]
    encryption_type: int

    def signed_part(self) -> bytes:
        keys = b"".join(key_id.encode() + data for key_id, data in self.group_keys)
        return self.request_id.encode() + self.recipient_id + keys


def read_request(body: bytes) -> GroupKeyRequest:
    """GroupKeyRequest of the 1.0 schema. Raises MalformedInput."""
    known = {1: wire.BYTES, 2: wire.BYTES, 3: wire.BYTES, 4: wire.BYTES, 5: wire.VARINT}
    fields = wire.Fields(body, "groupKeyRequest", known, frozenset({4}))
    ids = fields.blobs(4)
    if len(ids) > MAX_KEYS:
        raise MalformedInput("groupKeyIds", f"more than {MAX_KEYS}")
    return GroupKeyRequest(
        fields.text(1, "requestId"),
        fields.blob(2),
        fields.blob(3),
        tuple(wire.decode_text(item, "groupKeyIds") for item in ids),
        _encryption(fields.integer(5)),
    )


def read_response(body: bytes) -> GroupKeyResponse:
    """GroupKeyResponse of the 1.0 schema. Raises MalformedInput."""
    known = {1: wire.BYTES, 2: wire.BYTES, 3: wire.BYTES, 4: wire.VARINT}
    fields = wire.Fields(body, "groupKeyResponse", known, frozenset({3}))
    keys = fields.blobs(3)
    if len(keys) > MAX_KEYS:
        raise MalformedInput("groupKeys", f"more than {MAX_KEYS}")
    return GroupKeyResponse(
        fields.text(1, "requestId"),
        fields.blob(2),
        tuple(read_key(key, "groupKeys") for key in keys),
        _encryption(fields.integer(4)),
    )


def read_key(body: bytes, name: str) -> tuple[str, bytes]:
    """EncryptedGroupKey: id and ciphertext. Raises MalformedInput."""
    fields = wire.Fields(body, name, {1: wire.BYTES, 2: wire.BYTES})
    return fields.text(1, f"{name}.id"), fields.blob(2)


def write_request(request: GroupKeyRequest) -> bytes:
    return b"".join(
        (
            wire.write_scalar_bytes(1, request.request_id.encode()),
            wire.write_scalar_bytes(2, request.recipient_id),
            wire.write_scalar_bytes(3, request.public_key),
            *(wire.write_bytes(4, key_id.encode()) for key_id in request.group_key_ids),
            wire.write_integer(5, request.encryption_type),
        )
    )


def write_response(response: GroupKeyResponse) -> bytes:
    return b"".join(
        (
            wire.write_scalar_bytes(1, response.request_id.encode()),
            wire.write_scalar_bytes(2, response.recipient_id),
            *(wire.write_bytes(3, write_key(key_id, data)) for key_id, data in response.group_keys),
            wire.write_integer(4, response.encryption_type),
        )
    )


def write_key(key_id: str, data: bytes) -> bytes:
    return wire.write_scalar_bytes(1, key_id.encode()) + wire.write_scalar_bytes(2, data)


def _encryption(number: int) -> int:
    if number not in (0, 1):
        raise MalformedInput("groupKey.encryptionType", f"number {number} is unknown")
    return number
