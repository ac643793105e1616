"""Arweave's formats: what is refused, by the field that is wrong. What must be taken: unit/conformance/test_vectors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import paths
from validator.protocol.codec import arweave, arweave_chunks
from validator.protocol.errors import MalformedInput

VECTORS: dict[str, Any] = json.loads((paths.VECTORS / "arweave.json").read_text())


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
