"""The Arweave gateway of a finished run in memory: really signed headers, their data, and the books about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests import paths
from validator.net.arweave.wallet import ArweaveWallet, generate_wallet
from validator.protocol.codec.arweave import (
    Transaction,
    attach_signature,
    compute_signature_data,
    encode_tags,
    encode_transaction,
)
from validator.protocol.codec.arweave_chunks import build_chunk_tree
from validator.protocol.codec.arweave_text import decode_base64url, encode_base64url, encode_storage_id
from validator.protocol.model import StorageId

WALLET_WINSTON = 10**13
PRICE = 5_000
VECTORS = paths.VECTORS / "ans104.json"


@cache
def a_wallet() -> ArweaveWallet:
    return ArweaveWallet.from_jwk(json.loads(VECTORS.read_text())["keys"]["arweave"])


@cache
def another_wallet() -> ArweaveWallet:
    """Made once, in a second or two."""
    return ArweaveWallet.from_jwk(generate_wallet())


@dataclass(slots=True)
class FakeGateway:
    """Answers HTTP paths from what was uploaded. Any number of bytes costs the same."""

    headers: dict[str, dict[str, Any]] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    block_ms: dict[int, int] = field(default_factory=dict)
    """When each block was mined, by its height."""
    stats: dict[str, Any] = field(
        default_factory=lambda: {"transactions": [], "paid": {}, "balances": {}, "minted": "0", "spent": "0"}
    )

    def get_json(self, path: str) -> Any:
        if path == "/devnet/stats":
            return self.stats
        if path.startswith("/price/"):
            return PRICE
        return self.headers[path.removeprefix("/tx/")]

    def post_json(self, path: str, body: Any) -> Any:
        assert path == "/graphql"
        (wanted,) = body["variables"]["ids"]
        heights = {line["id"]: line["height"] for line in self.stats["transactions"]}
        block = {"height": heights[wanted], "timestamp": self.block_ms[heights[wanted]] // 1000}
        return {"data": {"transactions": {"edges": [{"node": {"id": wanted, "block": block}}]}}}

    def get_bytes(self, path: str, max_bytes: int) -> bytes:
        body = self.bodies[path.removeprefix("/raw/")]
        if len(body) > max_bytes:
            raise ValueError("longer than its transaction says")
        return body

    def upload(
        self,
        data: bytes,
        tags: tuple[tuple[str, str], ...],
        mined_ms: int,
        *,
        wallet: Callable[[], ArweaveWallet] = a_wallet,
        reward: int = PRICE,
    ) -> StorageId:
        """A transaction that was signed, paid, mined in a block of its own, and seeded."""
        owner = wallet()
        unsigned = Transaction(
            owner=owner.owner,
            last_tx=bytes(48),
            reward=reward,
            tags=encode_tags(tags),
            data_size=len(data),
            data_root=build_chunk_tree(len(data), lambda start, end: data[start:end]).data_root,
        )
        signed = attach_signature(unsigned, owner.sign(compute_signature_data(unsigned)))
        self.headers[encode_storage_id(signed.id)] = encode_transaction(signed)
        self.bodies[encode_storage_id(signed.id)] = data
        height = len(self.block_ms) + 1
        self.block_ms[height] = mined_ms
        self._enter(signed, encode_base64url(owner.address), height)
        return signed.id

    def upload_again(
        self, storage_id: StorageId, mined_ms: int, wallet: Callable[[], ArweaveWallet], reward: int = PRICE
    ) -> StorageId:
        """The same data and tags, paid for once more."""
        name = encode_storage_id(storage_id)
        tags = tuple((_text(tag["name"]), _text(tag["value"])) for tag in self.headers[name]["tags"])
        return self.upload(self.bodies[name], tags, mined_ms, wallet=wallet, reward=reward)

    def fund(self, wallets: tuple[bytes, ...]) -> None:
        self.stats["balances"] = {encode_base64url(w): str(WALLET_WINSTON) for w in wallets}
        self.stats["minted"] = str(WALLET_WINSTON * len(wallets))

    def _enter(self, transaction: Transaction, owner: str, height: int) -> None:
        """One mined transaction in the books."""
        root = dict(transaction.tag_texts).get("Bundle-Root", "")
        stats = self.stats
        owners = stats["paid"].setdefault(root, {})
        owners[owner] = owners.get(owner, 0) + 1
        stats["transactions"].append(
            {
                "id": encode_storage_id(transaction.id),
                "owner": owner,
                "reward": str(transaction.reward),
                "height": height,
                "data_size": transaction.data_size,
                "bundle_root": root,
            }
        )
        stats["spent"] = str(int(stats["spent"]) + transaction.reward)
        stats["balances"][owner] = str(int(stats["balances"].get(owner, "0")) - transaction.reward)


def _text(encoded: str) -> str:
    return decode_base64url(encoded, "tag", max_bytes=4096).decode()
