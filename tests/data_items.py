"""Bundles of data items (ANS-104) as a bundling service posts them for its customers; nothing of ours writes any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from validator.devnet.gateway import ans104
from validator.devnet.gateway.ans104 import DataItem, ItemSignature
from validator.net.arweave.wallet import ArweaveWallet

MARKS = (("Bundle-Format", "binary"), ("Bundle-Version", "2.0.0"))
"""Tags of the transaction that carries a bundle."""


def make_item(wallet: ArweaveWallet, tags: Sequence[tuple[str, str]], data: bytes) -> DataItem:
    item = DataItem(ItemSignature.ARWEAVE, wallet.owner, _encode_tags(tags), data, b"", b"", b"")
    return replace(item, signature=wallet.sign(ans104.compute_signed_message(item)))


def encode_bundle(items: Sequence[DataItem]) -> bytes:
    encoded = [_encode_item(item) for item in items]
    entries = [len(raw).to_bytes(32, "little") + item.id for raw, item in zip(encoded, items, strict=True)]
    return b"".join((len(items).to_bytes(ans104.COUNT_BYTES, "little"), *entries, *encoded))


def _encode_item(item: DataItem) -> bytes:
    """Without target and anchor."""
    counts = len(item.tags).to_bytes(8, "little") + len(item.tag_bytes).to_bytes(8, "little")
    parts = (item.signature_type.to_bytes(2, "little"), item.signature, item.owner, bytes(2), counts, item.tag_bytes)
    return b"".join((*parts, item.data))


def _encode_tags(tags: Sequence[tuple[str, str]]) -> bytes:
    texts = [text.encode() for tag in tags for text in tag]
    block = b"".join(_varint(len(text)) + text for text in texts)
    return _varint(len(tags)) + block + b"\x00" if tags else b""


def _varint(number: int) -> bytes:
    number *= 2
    low, high = number & 0x7F, number >> 7
    return bytes((low | 0x80, high)) if high else bytes((low,))
