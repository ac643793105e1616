"""Judge a file of signed Streamr messages: verdict, fields, payload, digest and signer of every line.

    python -m tests.conformance streamr FILE

One JSON object per line, as tests/vectors/streamr.jsonl. Prints ``N of N agree`` and ends with 0, or each
difference and 1. A line marked ``edge`` may be refused; if it is accepted, its payload must agree. Besides the
verdict, every accepted message must survive its own canonical bytes and being written in its own era's form.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from validator.protocol.codec.group_key import read_request, read_response
from validator.protocol.codec.legacy_array import read_legacy_array, write_legacy_array
from validator.protocol.codec.message import make_record, record_from_canonical
from validator.protocol.codec.payload import normalise_signature, signature_payload, signed_digest
from validator.protocol.codec.protobuf import read_protobuf, write_protobuf
from validator.protocol.codec.secp256k1 import recover_address
from validator.protocol.codec.signatures import VALID, Verdict, resolve_erc1271, verify_batch
from validator.protocol.errors import MalformedInput
from validator.protocol.model import EncryptionType, Message, MessageType, Reason, SignatureType

AGREED, DIFFERED, USAGE = 0, 1, 2
MAGIC = "0x1626ba7e"
_ARRAY_KINDS = (SignatureType.ARRAY_ETH, SignatureType.ARRAY_ETH_LEGACY)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m tests.conformance streamr FILE", file=sys.stderr)
        return USAGE
    try:
        lines = Path(arguments[0]).read_bytes().split(b"\n")
    except OSError as error:
        print(f"{arguments[0]}: {error.strerror}", file=sys.stderr)
        return USAGE
    vectors = [json.loads(line) for line in lines if line.strip()]
    agree = 0
    for vector in vectors:
        differences = list(find_differences(vector))
        agree += not differences
        for difference in differences:
            print(f"{vector['id']} {vector['family']}: {difference}")
    print(f"{agree} of {len(vectors)} agree")
    return AGREED if agree == len(vectors) and vectors else DIFFERED


def find_differences(vector: dict[str, Any]) -> Iterator[str]:
    """What of one line we see otherwise."""
    try:
        message = read(vector)
    except MalformedInput as refusal:
        if vector["valid"] and not vector["edge"]:
            yield f"refused ({refusal}), the reference accepts it"
        return
    verdict = judge(message, vector)
    if (verdict is VALID) != vector["valid"] and not vector["edge"]:
        yield f"verdict {verdict.value}, the reference says {'valid' if vector['valid'] else vector['reason']}"
    if vector["decoded"] is not None:
        yield from compare_fields(message, vector)
        yield from compare_signed(message, vector)
    if verdict is VALID:
        yield from check_own_forms(message, vector["format"])


def read(vector: dict[str, Any]) -> Message:
    """Raises MalformedInput."""
    if vector["format"] == "legacy-json":
        return read_legacy_array(vector["serialized"].encode())
    return read_protobuf(base64.b64decode(vector["serializedBase64"]))


def judge(message: Message, vector: dict[str, Any]) -> Verdict:
    """The verdict, the contract's simulated answer included; the three ways of asking must agree."""
    verdict = verify_batch([message])[0]
    if verify_batch([make_record(message)])[0] is not verdict:
        raise AssertionError("record and message are judged differently")
    if verdict is Reason.ERC1271_UNKNOWN:
        return resolve_erc1271(message, vector["erc1271"]["returns"] == MAGIC)
    return verdict


def compare_signed(message: Message, vector: dict[str, Any]) -> Iterator[str]:
    payload = signature_payload(message)
    if "payloadHex" in vector and payload.hex() != vector["payloadHex"]:
        yield "payload differs"
    if len(payload) != vector["payloadLength"] or hashlib.sha256(payload).hexdigest() != vector["payloadSha256"]:
        yield "length or SHA-256 of the payload differs"
    if vector.get("digestHex") is not None and signed_digest(message).hex() != vector["digestHex"]:
        yield "digest differs"
    if message.signature_type in (SignatureType.ML_DSA_87, SignatureType.ECDSA_SECP256R1):
        return
    try:
        signer = "0x" + recover_address(signed_digest(message), message.signature).hex()
    except MalformedInput:
        signer = None
    if signer != vector["recoveredAddress"]:
        yield f"signer {signer}, expected {vector['recoveredAddress']}"


def compare_fields(message: Message, vector: dict[str, Any]) -> Iterator[str]:
    for name, ours, theirs in _fields(message, vector):
        if ours != theirs:
            yield f"{name} is {ours!r}, expected {theirs!r}"


def _fields(m: Message, vector: dict[str, Any]) -> Iterator[tuple[str, object, object]]:
    decoded = vector["decoded"]
    prev = decoded["prevMsgRef"]
    yield "streamId", m.stream_id, decoded["streamId"]
    yield "streamPartition", m.partition, decoded["streamPartition"]
    yield "timestamp", m.timestamp_ms, decoded["timestamp"]
    yield "sequenceNumber", m.sequence_number, decoded["sequenceNumber"]
    yield "publisherId", "0x" + m.publisher_id.hex(), decoded["publisherId"]
    yield "msgChainId", m.msg_chain_id, _utf8_of(decoded["msgChainId"])
    ours = None if m.prev is None else {"timestamp": m.prev.timestamp_ms, "sequenceNumber": m.prev.sequence_number}
    yield "prevMsgRef", ours, prev
    yield "messageType", m.message_type.name, decoded["messageType"]
    yield "contentType", m.content_type.name, decoded["contentType"]
    # a key response of the array says RSA, which is inside its content; our field names AES or nothing
    rsa = decoded["encryptionType"] == "RSA" and m.message_type is MessageType.GROUP_KEY_RESPONSE
    yield "encryptionType", m.encryption_type.name, "NONE" if rsa else decoded["encryptionType"]
    yield "groupKeyId", m.group_key_id, decoded["groupKeyId"]
    yield "newGroupKey", _new_group_key(m, decoded["newGroupKey"]), decoded["newGroupKey"]
    yield "content", _wire_content(m, vector["format"]), base64.b64decode(vector["contentBase64"])
    if m.message_type is MessageType.GROUP_KEY_REQUEST and vector["format"] == "protobuf":
        request = read_request(m.content)
        named = decoded["groupKeyRequest"]
        yield "requestId", request.request_id, named["requestId"]
        yield "recipientId", "0x" + request.recipient_id.hex(), named["recipientId"]
        yield "groupKeyIds", list(request.group_key_ids), named["groupKeyIds"]
    if m.message_type is MessageType.GROUP_KEY_RESPONSE and vector["format"] == "protobuf":
        response = read_response(m.content)
        named = decoded["groupKeyResponse"]
        yield "requestId", response.request_id, named["requestId"]
        yield "recipientId", "0x" + response.recipient_id.hex(), named["recipientId"]
    if vector["signature"] is not None:
        theirs = binascii.unhexlify(vector["signature"].removeprefix("0x"))
        yield "signature", m.signature.hex(), normalise_signature(m.signature_type, theirs).hex()


def _wire_content(m: Message, form: str) -> bytes:
    """Arrays carry ciphertext as hex text; type 0 keeps its bytes."""
    as_hex = form == "legacy-json" and m.encryption_type is EncryptionType.AES and m.signature_type not in _ARRAY_KINDS
    return m.content.hex().encode() if as_hex else m.content


def _new_group_key(m: Message, decoded: dict[str, Any] | None) -> object:
    key = m.new_group_key
    if key is None or decoded is None:
        return None if key is None else key
    if m.signature_type in _ARRAY_KINDS:
        key_id, ciphertext = json.loads(key.data)
        return {"id": key_id, "dataHex": ciphertext, "wire": key.data.decode()}
    ours = {"id": key.id, "dataHex": key.data.hex()}
    if decoded.get("wire") is not None:
        ours["wire"] = json.dumps([key.id, key.data.hex()], ensure_ascii=False, separators=(",", ":"))
    elif "wire" in decoded:
        return {**ours, "wire": None}
    return ours


def _utf8_of(text: str) -> str:
    """A lone surrogate is signed as U+FFFD, and read as that."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def check_own_forms(message: Message, form: str) -> Iterator[str]:
    """Canonical bytes and the era's own wire must give the message back."""
    record = make_record(message)
    if record_from_canonical(record.canonical) != record or record.message != message:
        yield "the canonical bytes give another message"
    if form == "legacy-json":
        again = read_legacy_array(write_legacy_array(message))
    else:
        again = read_protobuf(write_protobuf(message))
    if again != message:
        yield "written and read again it is another message"
