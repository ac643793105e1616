"""Judge a file of Arweave vectors: what libraries and the reference node made, taken and refused.

    python -m tests.conformance arweave FILE

The file is as tests/vectors/arweave.json. Prints what was compared, section by section, and ``N of N agree``; ends
with 1 at the first difference, which it names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from tests import vector_file
from tests.vector_file import Section, b64, bytes_of, load_wallet
from validator.net.arweave.client import compute_client_signature_data
from validator.protocol.codec import arweave, arweave_chunks
from validator.protocol.codec.arweave import Transaction
from validator.protocol.codec.arweave_chunks import ChunkTree, PathRules
from validator.protocol.codec.arweave_text import encode_base64url, encode_storage_id
from validator.protocol.errors import MalformedInput

SCHEMA = "arweave-vectors/1"
USED = ("made_with",)
MAX_DATA_BYTES = 1 << 24


def main(arguments: list[str]) -> int:
    return vector_file.judge(arguments, "arweave", SCHEMA, sections_of, USED)


def sections_of(vectors: Mapping[str, Any]) -> dict[str, Section]:
    wallets = _Wallets(vectors["keys"])
    return {
        "keys": Section("keys are read strictly; their addresses", wallets.judge_keys),
        "addresses": Section("address of an owner", _judge_address),
        "deep_hash": Section("SHA-384 of nested lists", _judge_deep_hash),
        "chunking": Section("cuts, root, proof of each chunk, inline root, paid size", _judge_chunking),
        "transactions": Section("signed bytes, signatures of three salts, ids, wire", wallets.judge_transaction),
        "format1": Section("transactions of format 1 are refused", _judge_format_1),
        "invalid_transactions": Section("refused with the node's code", _judge_invalid),
        "chunk_checks": Section("answer of POST /chunk, and what is kept", _judge_chunk),
        "priced_size": Section("bytes that are paid for", _judge_priced_size),
    }


def tree_of(data: bytes) -> ChunkTree:
    return arweave_chunks.build_chunk_tree(len(data), lambda start, end: data[start:end])


# --- keys, hashes -----------------------------------------------------------------------------------


class _Wallets:
    """The keys of a file, and what they must sign again."""

    def __init__(self, keys: Mapping[str, dict[str, str]]) -> None:
        self.keys = keys

    def judge_keys(self, keys: Mapping[str, dict[str, str]]) -> Iterator[str]:
        for name, jwk in keys.items():
            wallet = load_wallet(jwk)
            if encode_base64url(wallet.owner) != jwk["n"] or wallet.address != hashlib.sha256(b64(jwk["n"])).digest():
                yield f"{name}: owner or address differs"

    def judge_transaction(self, case: dict[str, Any]) -> Iterator[str]:
        yield from _judge_root(case)
        for name, signed in case["signatures"].items():
            wire = wire_of(case, signed)
            tx = arweave.decode_transaction(wire)
            yield from (f"{name}: {difference}" for difference in _judge_signed(case, tx))
            if arweave.encode_transaction(tx) != wire:
                yield f"{name}: another wire JSON"
            if arweave.decode_transaction_json(arweave.encode_transaction_json(tx)) != tx:
                yield f"{name}: written and read again it is another transaction"
            if name == "salt0" and not self._is_reproduced(case, tx):
                yield "salt0: no key of the file gives this signature and id"

    def _is_reproduced(self, case: dict[str, Any], tx: Transaction) -> bool:
        for jwk in self.keys.values():
            wallet = load_wallet(jwk)
            if wallet.owner == tx.owner:
                message = arweave.compute_signature_data(tx)
                if compute_client_signature_data(tx, wallet.public_jwk) != message:
                    return False
                again = arweave.attach_signature(tx, wallet.sign(message))
                signed = case["signatures"]["salt0"]
                return (again.signature, encode_storage_id(again.id)) == (b64(signed["signature"]), signed["id"])
        return False


def _judge_address(case: dict[str, str]) -> Iterator[str]:
    if encode_base64url(arweave.compute_address(b64(case["owner"]))) != case["address"]:
        yield "address differs"


def _judge_deep_hash(case: dict[str, Any]) -> Iterator[str]:
    if arweave.deep_hash(_unwrap(case["input"])).hex() != case["sha384"]:
        yield "hash differs"


def _unwrap(value: Any) -> Any:
    return [_unwrap(element) for element in value] if isinstance(value, list) else b64(value)


# --- transactions -----------------------------------------------------------------------------------


def wire_of(case: dict[str, Any], signed: dict[str, str]) -> dict[str, Any]:
    tags = [
        {"name": encode_base64url(tag["name"].encode()), "value": encode_base64url(tag["value"].encode())}
        for tag in case["tags"]
    ]
    return {**case["fields"], "tags": tags, "data": "", "id": signed["id"], "signature": signed["signature"]}


def _judge_root(case: dict[str, Any]) -> Iterator[str]:
    data, fields = bytes_of(case["data"]), case["fields"]
    tree = tree_of(data)
    if (encode_base64url(tree.data_root), str(tree.data_size)) != (fields["data_root"], fields["data_size"]):
        yield "our cut gives another root or size"
    if (arweave_chunks.compute_inline_root(data) == tree.data_root) is not case["inline_ok"]:
        yield "whether the data may travel inside differs"


def _judge_signed(case: dict[str, Any], tx: Transaction) -> Iterator[str]:
    message = arweave.compute_signature_data(tx)
    if message.hex() != case["signature_data"]:
        yield "signed bytes differ"
    if sum(len(name) + len(value) for name, value in tx.tags) != case["tag_bytes"]:
        yield "size of the tags differs"
    if hashlib.sha256(tx.signature).digest() != tx.id:
        yield "the id is not the signature's hash"
    if not arweave.is_signature_valid(tx.owner, message, tx.signature):
        yield "signature does not verify"
    fault = arweave.compute_fault(tx)
    if (fault is None) is not case["valid"]:
        yield f"judged {fault or 'sound'}, the node says {case.get('reason') or 'sound'}"


def _judge_format_1(case: dict[str, Any]) -> Iterator[str]:
    """We neither send nor read any; its signed bytes are of no use to us."""
    wire = {"format": 1, "tags": case["tags"], "last_tx": case["last_tx"], "reward": case["reward"]}
    try:
        arweave.decode_transaction(wire)
    except MalformedInput as error:
        if error.field == "format":
            return
    yield "read, or refused for something else than its format"


def _judge_invalid(case: dict[str, Any]) -> Iterator[str]:
    tx = arweave.decode_transaction(case["json"], max_data_bytes=MAX_DATA_BYTES)
    fault = arweave.compute_fault(tx)
    if fault != case["error"]:
        yield f"judged {fault or 'sound'}, the node says {case['error']}"
    try:
        arweave.verify_transaction(tx)
    except MalformedInput as error:
        if error.fields.get("code") != case["error"]:
            yield f"refused with {error.fields.get('code')}"
        return
    yield "verified"


# --- chunks -----------------------------------------------------------------------------------------


def _judge_chunking(case: dict[str, Any]) -> Iterator[str]:
    data = bytes_of(case["data"])
    tree, inline = tree_of(data), arweave_chunks.compute_inline_root(data)
    if hashlib.sha256(data).hexdigest() != case["sha256"]:
        yield "the data itself is other data"
    if (str(tree.data_size), encode_base64url(tree.data_root)) != (case["data_size"], case["data_root"]):
        yield "size or root differs"
    if [(c.start, c.end, str(c.end - 1)) for c in tree.chunks] != [
        (c["min"], c["max"], c["offset"]) for c in case["chunks"]
    ]:
        yield "cut in other places"
        return
    for index, expected in enumerate(case["chunks"]):
        path, data_hash = b64(expected["data_path"]), b64(expected["data_hash"])
        if (tree.data_hashes[index], tree.compute_data_path(index)) != (data_hash, path):
            yield f"chunk {index}: hash or proof differs"
        proven = arweave_chunks.validate_data_path(tree.data_root, len(data), int(expected["offset"]), path)
        place = (expected["min"], expected["max"], data_hash)
        if proven is None or (proven.start, proven.end, proven.data_hash) != place:
            yield f"chunk {index}: its proof shows something else"
    if (encode_base64url(inline), inline == tree.data_root) != (case["inline_data_root"], case["inline_ok"]):
        yield "root of the data inside a header differs"
    if arweave_chunks.compute_paid_size(len(data)) != case["priced_size"]:
        yield "paid size differs"


def _judge_chunk(case: dict[str, Any]) -> Iterator[str]:
    root, size, offset = b64(case["data_root"]), int(case["data_size"]), int(case["offset"])
    path, chunk = b64(case["data_path"]), bytes_of(case["data"])[slice(*case["chunk_range"])]
    verdict = arweave_chunks.judge_chunk(root, size, offset, path, chunk)
    if verdict.error != case["error"]:
        yield f"answered {verdict.error}, the node says {case['error']}"
    if verdict.is_kept is not (case["error"] is None and case["stored_when_confirmed"]):
        yield "kept or not, otherwise than by a node"
    if arweave_chunks.is_ratio_attractive(len(chunk), size, path) is not case["ratio_ok"]:
        yield "the ratio of chunk and proof is judged otherwise"
    found = [arweave_chunks.validate_data_path(root, size, offset, path, rules) for rules in PathRules]
    facts = (len(chunk), hashlib.sha256(chunk).digest())
    if any(p is not None and (p.end - p.start, p.data_hash) == facts for p in found) is not case["proof_ok"]:
        yield "the proof is judged otherwise"


def _judge_priced_size(case: list[int]) -> Iterator[str]:
    size, paid = case
    if arweave_chunks.compute_paid_size(size) != paid:
        yield f"{arweave_chunks.compute_paid_size(size)} bytes for {size}, the network charges {paid}"
