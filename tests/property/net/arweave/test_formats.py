"""What must hold for every size and every transaction, not only for the vectors."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from validator.protocol.codec import arweave, arweave_chunks, arweave_text
from validator.protocol.codec.arweave import Transaction
from validator.protocol.codec.arweave_chunks import CHUNK_BYTES, SMALLEST_LAST_CHUNK_BYTES, PathRules
from validator.protocol.errors import MalformedInput, ValidatorError

sizes = st.integers(0, 9 * CHUNK_BYTES) | st.builds(
    lambda chunks, off: max(0, chunks * CHUNK_BYTES + off), st.integers(0, 9), st.integers(-40_000, 40_000)
)
small_data = st.integers(1, 5 * CHUNK_BYTES).map(lambda size: random.Random(size).randbytes(size))
byte_fields = st.binary(max_size=64)
amounts = st.integers(0, 10**24)
transactions = st.builds(
    Transaction,
    owner=st.binary(max_size=512),
    last_tx=st.binary(max_size=48),
    reward=amounts,
    tags=st.lists(st.tuples(byte_fields, byte_fields), max_size=6).map(tuple),
    data_size=amounts,
    data_root=st.binary(max_size=32),
    target=st.binary(max_size=32),
    quantity=amounts,
    signature=st.binary(max_size=512),
).map(lambda tx: arweave.attach_signature(tx, tx.signature))


def tree_of(data: bytes) -> arweave_chunks.ChunkTree:
    return arweave_chunks.build_chunk_tree(len(data), lambda start, end: data[start:end])


@given(size=sizes)
def test_chunks_cover_the_data_in_legal_pieces(size: int) -> None:
    chunks = arweave_chunks.cut_chunks(size)
    assert sum(chunk.size for chunk in chunks) == size
    assert all(left.end == right.start for left, right in pairwise(chunks))
    assert all(chunk.size == CHUNK_BYTES for chunk in chunks[:-2])
    assert all(0 < chunk.size <= CHUNK_BYTES for chunk in chunks)
    if len(chunks) > 1:
        assert chunks[-1].size >= SMALLEST_LAST_CHUNK_BYTES
    assert all(chunk.start % CHUNK_BYTES == 0 for chunk in chunks[:-1])


@settings(max_examples=25, deadline=None)
@given(data=small_data, pick=st.randoms(use_true_random=False))
def test_every_proof_holds_for_its_own_chunk_and_no_other(data: bytes, pick: random.Random) -> None:
    tree = tree_of(data)
    for index, chunk in enumerate(tree.chunks):
        path = tree.compute_data_path(index)
        offset = pick.randrange(chunk.start, chunk.end)
        proven = arweave_chunks.validate_data_path(tree.data_root, len(data), offset, path)
        assert proven == arweave_chunks.ProvenChunk(chunk.start, chunk.end, tree.data_hashes[index])
        verdict = arweave_chunks.judge_chunk(tree.data_root, len(data), offset, path, data[chunk.start : chunk.end])
        assert verdict.error is None
        assert verdict.is_kept
        wrong = bytearray(path)
        wrong[pick.randrange(len(wrong))] ^= 1 << pick.randrange(8)
        for rules in PathRules:
            assert arweave_chunks.validate_data_path(tree.data_root, len(data), offset, bytes(wrong), rules) is None
        other = pick.randrange(len(data))
        if not chunk.start <= other < chunk.end:
            assert arweave_chunks.validate_data_path(tree.data_root, len(data), other, path) is None


@settings(max_examples=25, deadline=None)
@given(data=small_data, pick=st.randoms(use_true_random=False))
def test_one_changed_byte_changes_the_root(data: bytes, pick: random.Random) -> None:
    changed = bytearray(data)
    changed[pick.randrange(len(data))] ^= 1
    assert tree_of(bytes(changed)).data_root != tree_of(data).data_root
    assert tree_of(data[:-1]).data_root != tree_of(data).data_root


@given(path=st.binary(max_size=400), root=st.binary(min_size=32, max_size=32), size=amounts, offset=amounts)
def test_arbitrary_bytes_prove_nothing_and_never_raise(path: bytes, root: bytes, size: int, offset: int) -> None:
    for rules in PathRules:
        assert arweave_chunks.validate_data_path(root, size, offset, path, rules) is None
    assert arweave_chunks.judge_chunk(root, size, offset, path, b"chunk").error is not None


@given(tx=transactions)
def test_wire_json_comes_back_as_it_was(tx: Transaction) -> None:
    assert arweave.decode_transaction_json(arweave.encode_transaction_json(tx)) == tx


@given(tx=transactions, other=transactions)
def test_different_fields_never_share_signed_bytes(tx: Transaction, other: Transaction) -> None:
    unsigned, another = (replace(t, signature=b"", id=tx.id, data=b"") for t in (tx, other))
    same = arweave.compute_signature_data(unsigned) == arweave.compute_signature_data(another)
    assert same == (unsigned == another)


@given(tx=transactions)
def test_no_transaction_without_a_signature_is_sound(tx: Transaction) -> None:
    assert arweave.compute_fault(tx) is not None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    tx=transactions,
    field=st.sampled_from(sorted(arweave.encode_transaction(Transaction(b"", b"", 0)))),
    value=json_values,
)
def test_any_value_in_any_field_is_taken_or_refused_by_name(tx: Transaction, field: str, value: object) -> None:
    body = {**arweave.encode_transaction(tx), field: value}
    try:
        arweave.decode_transaction(body)
    except MalformedInput as error:
        assert str(error.field).startswith(field)


@given(text=st.text(max_size=60) | st.from_regex(r"\A[A-Za-z0-9_-]{0,60}\Z"))
def test_base64url_has_one_text_per_value(text: str) -> None:
    try:
        data = arweave_text.decode_base64url(text, "field", max_bytes=64)
    except ValidatorError:
        return
    assert arweave_text.encode_base64url(data) == text


@given(data=st.binary(max_size=80))
def test_base64url_comes_back(data: bytes) -> None:
    assert arweave_text.decode_base64url(arweave_text.encode_base64url(data), "field", max_bytes=len(data)) == data
    if data:
        with pytest.raises(MalformedInput):
            arweave_text.decode_base64url(arweave_text.encode_base64url(data), "field", max_bytes=len(data) - 1)
