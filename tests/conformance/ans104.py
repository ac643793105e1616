"""Judge a file of ANS-104 vectors: data items and bundles that libraries made, and what they wrongly accept.

    python -m tests.conformance ans104 FILE

The file is as tests/vectors/ans104.json. Nothing of ours writes items: what is judged is the reader of the development
gateway. Prints what was compared, section by section, and ``N of N agree``; ends with 1 at the first difference, which
it names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import coincurve
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests import vector_file
from tests.vector_file import Section, b64, bytes_of, load_wallet
from validator.devnet.gateway import ans104
from validator.devnet.gateway.ans104 import DataItem, ItemSignature
from validator.net.arweave.wallet import ArweaveWallet
from validator.protocol.codec.arweave_text import encode_base64url
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Digest

SCHEMA = "ans104-vectors/1"
USED = ("made_with",)


def main(arguments: list[str]) -> int:
    return vector_file.judge(arguments, "ans104", SCHEMA, sections_of, USED)


def sections_of(vectors: Mapping[str, Any]) -> dict[str, Section]:
    signers, items = Signers(vectors["keys"]), Items(vectors)
    return {
        "keys": Section("keys are read, and give the public ones", lambda keys: _judge_keys(keys, vectors["public"])),
        "public": Section("public keys and address", lambda public: _judge_keys(vectors["keys"], public)),
        "avro_tags": Section("tags", _judge_tags),
        "avro_decode_only": Section("tags in several blocks, with negative counts", _judge_tags),
        "items": Section("every field, id, signed bytes, signature made again", items.make_judge(signers)),
        "invalid_items": Section("refused", _refused_by(ans104.decode_data_item)),
        "bundles": Section("entries, and the items they name", items.judge_bundle),
        "invalid_bundles": Section("refused", _refused_by(ans104.decode_bundle)),
    }


def tags_of(case: Mapping[str, Any]) -> tuple[tuple[bytes, bytes], ...]:
    count = case.get("count", case.get("tags_count"))
    if count is not None:
        return tuple((b"n%d" % i, b"v%d" % i) for i in range(int(count)))
    return tuple((tag["name"].encode(), tag["value"].encode()) for tag in case["tags"])


def _judge_tags(case: dict[str, Any]) -> Iterator[str]:
    if ans104.decode_avro_tags(b64(case["avro_b64"])) != tags_of(case):
        yield "other tags"


def _refused_by(read: Callable[[bytes], object]) -> Callable[[dict[str, Any]], Iterator[str]]:
    def judge(case: dict[str, Any]) -> Iterator[str]:
        try:
            read(b64(case["raw_b64"]))
        except MalformedInput:
            return
        yield f"accepted, although {case['reason']}"

    return judge


def _judge_keys(keys: Mapping[str, Any], public: Mapping[str, str]) -> Iterator[str]:
    signers = Signers(keys)
    if encode_base64url(signers.wallet.owner) != keys["arweave"]["n"]:
        yield "another owner"
    for name, kind in (("ethereum", ItemSignature.ETHEREUM), ("ed25519", ItemSignature.ED25519)):
        if signers.owner_of(kind).hex() != public[name]:
            yield f"another {name} key"
    if signers.owner_of(ItemSignature.ETHEREUM_TYPED).decode() != public["ethereum_address"]:
        yield "another address"


class Signers:
    """The keys of a file: what they are to outsiders, and what they sign."""

    def __init__(self, keys: Mapping[str, Any]) -> None:
        self.keys = keys

    @property
    def wallet(self) -> ArweaveWallet:
        return load_wallet(self.keys["arweave"])

    @property
    def ethereum(self) -> bytes:
        return bytes.fromhex(self.keys["ethereum"].removeprefix("0x"))

    @property
    def ed25519(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(self.keys["ed25519_seed_hex"]))

    def owner_of(self, kind: ItemSignature) -> bytes:
        if kind is ItemSignature.ARWEAVE:
            return self.wallet.owner
        if kind is ItemSignature.ETHEREUM:
            return coincurve.PrivateKey(self.ethereum).public_key.format(compressed=False)
        if kind is ItemSignature.ETHEREUM_TYPED:
            return f"0x{SigningKey(self.ethereum).address.hex()}".encode()
        return self.ed25519.public_key().public_bytes_raw()

    def sign(self, item: DataItem) -> bytes:
        """A signature of the item's kind; each of them is a pure function of key and item."""
        message = ans104.compute_signed_message(item)
        if item.signature_type is ItemSignature.ARWEAVE:
            return self.wallet.sign(message)
        if item.signature_type in (ItemSignature.ED25519, ItemSignature.SOLANA_HEX):
            return self.ed25519.sign(message)
        return SigningKey(self.ethereum).sign(Digest(message))


class Items:
    """The items of a file as bytes, by name: bundles are made of them, and some hold a bundle."""

    def __init__(self, vectors: Mapping[str, Any]) -> None:
        self.items = {case["name"]: case for case in vectors["items"]}
        self.bundles = {case["name"]: case for case in vectors["bundles"]}

    def data_of(self, case: Mapping[str, Any]) -> bytes:
        spec = case["data"]
        return self.bundle_bytes(self.bundles[spec["bundle"]]) if "bundle" in spec else bytes_of(spec)

    def item_bytes(self, case: Mapping[str, Any]) -> bytes:
        return b64(case["raw_b64"]) if "raw_b64" in case else b64(case["header_b64"]) + self.data_of(case)

    def bundle_bytes(self, case: Mapping[str, Any]) -> bytes:
        if "raw_b64" in case:
            return b64(case["raw_b64"])
        return b64(case["header_b64"]) + b"".join(self.item_bytes(self.items[name]) for name in case["items"])

    def make_judge(self, signers: Signers) -> Callable[[dict[str, Any]], Iterator[str]]:
        def judge(case: dict[str, Any]) -> Iterator[str]:
            raw = self.item_bytes(case)
            item = ans104.decode_data_item(raw)
            yield from self._judge_fields(case, item, raw)
            if case.get("verify_only"):
                return
            yield from _judge_bytes(case, item, raw)
            if item.owner != signers.owner_of(item.signature_type):
                yield "another owner"
            if signers.sign(item) != item.signature:
                yield "the key gives another signature"
            if "alt_signature_max_salt" in case:
                other = b64(case["alt_signature_max_salt"]["signature"])
                ans104.decode_data_item(raw[:2] + other + raw[2 + len(other) :])

        return judge

    def _judge_fields(self, case: dict[str, Any], item: DataItem, raw: bytes) -> Iterator[str]:
        if item.signature_type != case["signature_type"]:
            yield f"signature type {item.signature_type}"
        if encode_base64url(item.id) != case["id"]:
            yield "another id"
        if (encode_base64url(item.target), item.anchor) != (case["target"], case["anchor_ascii"].encode()):
            yield "another target or anchor"
        if item.tags != tags_of(case):
            yield "other tags"
        if item.data != self.data_of(case):
            yield "other data"
        if len(raw) != int(case["size"]):
            yield f"{len(raw)} bytes"

    def judge_bundle(self, case: dict[str, Any]) -> Iterator[str]:
        raw = self.bundle_bytes(case)
        header = b64(case["header_b64"])
        if raw[: len(header)] != header or len(raw) != int(case["size"]):
            yield "another header or size"
        if hashlib.sha256(raw).hexdigest() != case["sha256"]:
            yield "another SHA-256"
        items = ans104.decode_bundle(raw)
        if [encode_base64url(item.id) for item in items] != [entry["id"] for entry in case["entries"]]:
            yield "other items"
        for name, item, entry in zip(case["items"], items, case["entries"], strict=True):
            start = int(entry["offset"])
            piece = raw[start : start + int(entry["size"])]
            if piece != self.item_bytes(self.items[name]) or ans104.decode_data_item(piece) != item:
                yield f"{name} is not where its entry says"


def _judge_bytes(case: dict[str, Any], item: DataItem, raw: bytes) -> Iterator[str]:
    if ans104.compute_signature_data(item).hex() != case["signature_data"]:
        yield "signed bytes differ"
    if item.signature != b64(case["signature"]):
        yield "another signature"
    if len(raw) - len(item.data) != int(case["data_start"]):
        yield "the data begins elsewhere"
    if hashlib.sha256(raw).hexdigest() != case["sha256"]:
        yield "another SHA-256"
