"""Arweave's formats against data that the network's own libraries and node produced."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from tests import paths
from validator.protocol.codec import arweave, arweave_chunks, arweave_text
from validator.protocol.codec.arweave import Transaction
from validator.protocol.errors import MalformedInput

VECTORS: dict[str, Any] = json.loads((paths.VECTORS / "arweave.json").read_text())


def b64(text: str) -> bytes:
    return arweave_text.decode_base64url(text, "vector", max_bytes=1 << 24)


def data_of(spec: dict[str, Any]) -> bytes:
    if "text" in spec:
        return str(spec["text"]).encode()
    return bytes((i * spec["mul"] + spec["add"]) % spec["mod"] for i in range(spec["size"]))


def tree_of(data: bytes) -> arweave_chunks.ChunkTree:
    return arweave_chunks.build_chunk_tree(len(data), lambda start, end: data[start:end])


def named(section: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", VECTORS[section], ids=lambda c: c["name"])


def unwrap(value: Any) -> Any:
    return [unwrap(v) for v in value] if isinstance(value, list) else b64(value)


def transaction_of(case: dict[str, Any], signature: dict[str, str]) -> Transaction:
    tags = [
        {
            "name": arweave_text.encode_base64url(t["name"].encode()),
            "value": arweave_text.encode_base64url(t["value"].encode()),
        }
        for t in case["tags"]
    ]
    return arweave.decode_transaction({**case["fields"], "tags": tags, "data": "", **signature})


@named("deep_hash")
def test_deep_hash_agrees_with_the_network(case: dict[str, Any]) -> None:
    assert arweave.deep_hash(unwrap(case["input"])).hex() == case["sha384"]


def test_an_address_is_the_hash_of_the_owner() -> None:
    for entry in VECTORS["addresses"]:
        assert arweave_text.encode_base64url(arweave.compute_address(b64(entry["owner"]))) == entry["address"]


@named("chunking")
def test_data_is_cut_and_proven_like_arweave_js(case: dict[str, Any]) -> None:
    data = data_of(case["data"])
    assert hashlib.sha256(data).hexdigest() == case["sha256"]
    tree = tree_of(data)
    assert str(tree.data_size) == case["data_size"]
    assert arweave_text.encode_base64url(tree.data_root) == case["data_root"]
    assert len(tree.chunks) == len(case["chunks"])
    for index, (chunk, expected) in enumerate(zip(tree.chunks, case["chunks"], strict=True)):
        assert (chunk.start, chunk.end, chunk.end - 1) == (expected["min"], expected["max"], int(expected["offset"]))
        assert tree.data_hashes[index] == b64(expected["data_hash"])
        assert tree.compute_data_path(index) == b64(expected["data_path"])
    assert arweave_text.encode_base64url(arweave_chunks.compute_inline_root(data)) == case["inline_data_root"]
    assert (arweave_chunks.compute_inline_root(data) == tree.data_root) is case["inline_ok"]
    assert arweave_chunks.compute_paid_size(len(data)) == case["priced_size"]


def test_prices_are_paid_for_whole_chunks() -> None:
    for size, paid in VECTORS["priced_size"]:
        assert arweave_chunks.compute_paid_size(size) == paid


@named("transactions")
def test_signed_bytes_and_signatures_agree(case: dict[str, Any]) -> None:
    for signature in case["signatures"].values():
        tx = transaction_of(case, signature)
        assert arweave.compute_signature_data(tx).hex() == case["signature_data"]
        assert sum(len(n) + len(v) for n, v in tx.tags) == case["tag_bytes"]
        fault = arweave.compute_fault(tx)
        assert fault == (None if case["valid"] else "tx_fields_too_large")
        assert arweave.is_signature_valid(tx.owner, arweave.compute_signature_data(tx), tx.signature)
        assert arweave.decode_transaction_json(arweave.encode_transaction_json(tx)) == tx


@named("transactions")
def test_our_own_cut_gives_the_root_that_was_signed(case: dict[str, Any]) -> None:
    tree = tree_of(data_of(case["data"]))
    assert arweave_text.encode_base64url(tree.data_root) == case["fields"]["data_root"]
    assert str(tree.data_size) == case["fields"]["data_size"]


@named("invalid_transactions")
def test_each_broken_transaction_is_refused_with_the_nodes_code(case: dict[str, Any]) -> None:
    tx = arweave.decode_transaction(case["json"], max_data_bytes=1 << 20)
    assert arweave.compute_fault(tx) == case["error"]
    with pytest.raises(MalformedInput, match=case["error"]):
        arweave.verify_transaction(tx)


@named("chunk_checks")
def test_chunks_are_judged_like_a_node(case: dict[str, Any]) -> None:
    data = data_of(case["data"])[slice(*case["chunk_range"])]
    verdict = arweave_chunks.judge_chunk(
        b64(case["data_root"]), int(case["data_size"]), int(case["offset"]), b64(case["data_path"]), data
    )
    assert verdict.error == case["error"]
    assert verdict.is_kept is (case["stored_when_confirmed"] and case["error"] is None)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("format", 1, "not 2"),
        ("format", True, "not 2"),
        ("denomination", "1", "not supported"),
        ("owner", None, "NoneType where base64url"),
        ("owner", "A" * 2000, "characters"),
        ("reward", 5, "int where decimal"),
        ("reward", "05", "plain decimal"),
        ("reward", "-5", "plain decimal"),
        ("reward", "٣", "plain decimal"),
        ("reward", "", "characters"),
        ("quantity", "9" * 31, "characters"),
        ("last_tx", "AA==", "canonical"),
        ("last_tx", "AB", "canonical"),
        ("last_tx", "A+", "canonical"),
        ("last_tx", "A", "not base64url"),
        ("last_tx", "Ü", "not base64url"),
        ("tags", {}, "not a list"),
        ("tags", [{"value": "eA", "name": "eA"}], "in this order"),
        ("tags", [{"name": "eA", "value": "eA", "more": ""}], "in this order"),
        ("tags", [{"name": "eA", "value": 5}], "int where base64url"),
        ("id", "AA", "1 bytes where 32 belong"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any, reason: str) -> None:
    good = VECTORS["invalid_transactions"][0]["json"]
    with pytest.raises(MalformedInput, match=reason) as caught:
        arweave.decode_transaction({**good, field: value})
    assert str(caught.value.field).startswith(field)


@pytest.mark.parametrize("text", ["", "[]", "nonsense", "[" * 100_000, "1" * 200_000])
def test_text_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput):
        arweave.decode_transaction_json(text, max_bytes=150_000)


def test_tags_beyond_the_limit_are_refused_before_signing() -> None:
    assert arweave.encode_tags([("n" * 1024, "v" * 1024)])
    for tags in ([("n" * 1024, "v" * 1025)], [("", "v")], [("n", "")]):
        with pytest.raises(MalformedInput, match="tags"):
            arweave.encode_tags(tags)


def test_chunk_json_comes_back_as_it_was() -> None:
    upload = arweave_chunks.ChunkUpload(bytes(32), 5, bytes(64), 4, b"hello")
    assert arweave_chunks.decode_chunk(json.loads(arweave_chunks.encode_chunk(upload))) == upload
    numbers = {**json.loads(arweave_chunks.encode_chunk(upload)), "offset": 4}
    with pytest.raises(MalformedInput, match="offset: int where decimal text"):
        arweave_chunks.decode_chunk(numbers)
