"""Our own vectors of messages and trees: canonical bytes, signed bytes, roots, proofs. Leaves have a file of their own.

    python -m tests.conformance canonical FILE            judge a file as below
    python -m tests.conformance canonical --write FOLDER  make canonical.json and merkle.json anew

canonical.json   [{name, fields, payload, signed_digest, canonical, verdict}]; bytes as hex
merkle.json      trees: [{size, root, inclusion: [{index, proof}], consistency: [{first, proof}]}], leaf number i
                 being H(0x00 || decimal text of i)

Published bytes never change; a change of format is a new kind and a new file beside these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from tests.builders import a_message
from tests.conformance.streamr import read
from tests.rfc9162 import leaf_hash
from tests.vector_file import AGREED, DIFFERED, USAGE, read_vectors
from validator.protocol.codec.message import encode_message, make_record, record_from_canonical
from validator.protocol.codec.payload import signature_payload, signed_digest
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.errors import MalformedInput
from validator.protocol.merkle import (
    compute_root,
    consistency_proof,
    inclusion_proof,
    verify_consistency,
    verify_inclusion,
)
from validator.protocol.model import (
    ContentType,
    EncryptionType,
    Message,
    MessageRef,
    MessageType,
    NewGroupKey,
    Root,
    SignatureType,
)

TREE_SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 255, 256, 257)
_FROM_STREAMR = {
    "P-256": "V034",
    "P-256, uncompressed key": "V035",
    "ML-DSA-87": "V036",
    "ERC-1271": "V033",
    "array: byte order mark": "V043",
    "array: new group key with white space": "V042",
    "array: type 1 of version 30": "V039",
    "array: key request": "V020",
    "protobuf: key request": "V029",
    "protobuf: key response": "V030",
    "array: lone surrogate in the chain id": "V048",
    "array: high s": "V045",
}


def main(arguments: list[str]) -> int:
    if len(arguments) == 2 and arguments[0] == "--write":
        folder = Path(arguments[1])
        for name, made in (("canonical.json", make_canonical()), ("merkle.json", make_merkle())):
            (folder / name).write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
        return AGREED
    vectors = read_vectors(arguments, "canonical FILE | --write FOLDER")
    if vectors is None:
        return USAGE
    differences = judge_messages(vectors) if isinstance(vectors, list) else judge_merkle(vectors)
    count = len(vectors) if isinstance(vectors, list) else len(vectors["trees"])
    differing = set()
    for name, difference in differences:
        differing.add(name)
        print(f"{name}: {difference}")
    print(f"{count - len(differing)} of {count} agree")
    return DIFFERED if differing or not count else AGREED


# --- judging --------------------------------------------------------------------------------------


def judge_messages(vectors: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for vector in vectors:
        name, canonical = vector["name"], bytes.fromhex(vector["canonical"])
        try:
            record = record_from_canonical(canonical)
        except MalformedInput as refusal:
            yield name, f"refused: {refusal}"
            continue
        if _fields_of(record.message) != vector["fields"]:
            yield name, "fields differ"
        if encode_message(record.message) != canonical:
            yield name, "canonical bytes differ"
        if signature_payload(record.message).hex() != vector["payload"]:
            yield name, "payload differs"
        if signed_digest(record.message).hex() != vector["signed_digest"]:
            yield name, "signed digest differs"
        if verify_message(record.message).value != vector["verdict"]:
            yield name, "verdict differs"


def judge_merkle(vectors: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for tree in vectors["trees"]:
        size, root = tree["size"], Root(bytes.fromhex(tree["root"]))
        name, leaves = f"tree of {size}", _leaves(size)
        if compute_root(leaves) != root:
            yield name, "root differs"
        for item in tree["inclusion"]:
            proof = tuple(map(bytes.fromhex, item["proof"]))
            index = item["index"]
            if inclusion_proof(leaves, index) != proof or not verify_inclusion(leaves[index], index, size, proof, root):
                yield name, f"inclusion of {index} differs"
        for item in tree["consistency"]:
            proof, first = tuple(map(bytes.fromhex, item["proof"])), item["first"]
            good = verify_consistency(first, size, proof, compute_root(leaves[:first]), root)
            if consistency_proof(leaves, first) != proof or not good:
                yield name, f"consistency with {first} differs"


# --- making ---------------------------------------------------------------------------------------


def make_canonical() -> list[dict[str, Any]]:
    return [_message_vector(name, message) for name, message in canonical_cases().items()]


def canonical_cases() -> dict[str, Message]:
    """Messages of every kind, smallest and largest, by name."""
    aes: dict[str, Any] = {
        "encryption_type": EncryptionType.AES,
        "group_key_id": "key-1",
        "content": bytes(range(16, 48)),
    }
    evm: dict[str, Any] = {"signature_type": SignatureType.ECDSA_SECP256K1_EVM}
    cases = {
        "type 0, plain": a_message(),
        "type 0, previous reference": a_message(prev=MessageRef(1_699_999_999_999, 3), sequence_number=7),
        "type 0, ciphertext signed as hex": a_message(**aes),
        "type 0, rotated key": a_message(**aes, new_group_key=NewGroupKey('key "2"', bytes(range(48)))),
        "type 1, plain": a_message(**evm),
        "type 1, binary that is not UTF-8": a_message(**evm, content=b"\xff\x00\xfe", content_type=ContentType.BINARY),
        "type 1, empty content": a_message(**evm, content=b"", content_type=ContentType.BINARY),
        "type 1, ciphertext and rotated key": a_message(**evm, **aes, new_group_key=NewGroupKey("k", b"\x01" * 48)),
        "smallest numbers": a_message(**evm, timestamp_ms=0, stream_id="a", msg_chain_id="", content=b""),
        "largest numbers": a_message(
            **evm,
            partition=99,
            timestamp_ms=2**53 - 1,
            sequence_number=2**31 - 1,
            prev=MessageRef(2**53 - 2, 2**31 - 1),
        ),
        "ids of 256 bytes": a_message(**evm, stream_id="ä" * 128, msg_chain_id="c" * 256, group_key_id="k" * 256),
        "key id on a plain message": a_message(group_key_id=""),
    }
    streamr = Path(__file__).parent.parent / "vectors" / "streamr.jsonl"
    by_id = {vector["id"]: vector for vector in map(json.loads, streamr.read_bytes().splitlines())}
    return cases | {name: make_record(read(by_id[line])).message for name, line in _FROM_STREAMR.items()}


def make_merkle() -> dict[str, Any]:
    return {"trees": [_tree(size) for size in TREE_SIZES]}


def _message_vector(name: str, message: Message) -> dict[str, Any]:
    record = make_record(message)
    verdict = verify_message(message)
    return {
        "name": name,
        "fields": _fields_of(message),
        "payload": signature_payload(message).hex(),
        "signed_digest": record.signed_digest.hex(),
        "canonical": record.canonical.hex(),
        "verdict": "valid" if verdict is VALID else verdict.value,
    }


def _fields_of(message: Message) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.hex()
        if isinstance(value, SignatureType | MessageType | ContentType | EncryptionType):
            return int(value)
        return fields(value) if isinstance(value, Struct) else value

    def fields(struct: Struct) -> dict[str, Any]:
        return {name: plain(value) for name, value in asdict(struct).items()}

    return fields(message)


def _leaves(size: int) -> list[bytes]:
    return [leaf_hash(str(number).encode()) for number in range(size)]


def _tree(size: int) -> dict[str, Any]:
    leaves = _leaves(size)
    some = sorted({index for index in (0, 1, size // 2, size - 2, size - 1) if 0 <= index < size})
    return {
        "size": size,
        "root": compute_root(leaves).hex(),
        "inclusion": [{"index": i, "proof": [node.hex() for node in inclusion_proof(leaves, i)]} for i in some],
        "consistency": [
            {"first": i, "proof": [node.hex() for node in consistency_proof(leaves, i)]} for i in [*some, size]
        ],
    }
