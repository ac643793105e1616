"""The development gateway on loopback in this process, and what tests post to it."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from tests import paths
from tests.vector_file import b64
from validator.devnet.gateway.__main__ import make_server
from validator.devnet.gateway.routes import Gateway
from validator.devnet.gateway.weave import Weave
from validator.devnet.process import listen
from validator.net.arweave.wallet import ArweaveWallet
from validator.protocol.codec import arweave, arweave_chunks
from validator.protocol.codec.arweave import Transaction
from validator.protocol.codec.arweave_chunks import ChunkTree, ChunkUpload
from validator.protocol.codec.arweave_text import encode_base64url

VECTORS: dict[str, Any] = json.loads((paths.VECTORS / "arweave.json").read_text())
PRICE = 10**12


class Served:
    """The gateway's real server at ``url``; what it serves is the weave that was chosen last, mined on request only.

    One server for many tests, since starting and ending one takes longer than most of them. The weave may be looked
    at and changed between requests.
    """

    def __init__(self) -> None:
        self.url = ""
        self._app: ASGIApp | None = None

    def choose(self, weave: Weave) -> None:
        self._app = Gateway(weave, lambda *_, **__: None, mine_ms=0).build_app()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await Starlette()(scope, receive, send)
            return
        assert self._app is not None
        await self._app(scope, receive, send)


@contextmanager
def serve_gateway() -> Iterator[Served]:
    served = Served()
    server = make_server(served)
    listener = listen(0)
    served.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield served
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def tree_of(data: bytes) -> ChunkTree:
    return arweave_chunks.build_chunk_tree(len(data), lambda start, end: data[start:end])


def sign(wallet: ArweaveWallet, weave: Weave, content: bytes = b"", /, **changes: Any) -> Transaction:
    tree = tree_of(content)
    tx = Transaction(wallet.owner, weave.anchor, PRICE, (), tree.data_size, tree.data_root)
    tx = replace(tx, **changes)
    return arweave.attach_signature(tx, wallet.sign(arweave.compute_signature_data(tx)))


def id_of(tx: Transaction) -> str:
    return encode_base64url(tx.id)


async def post(node: httpx.AsyncClient, tx: Transaction) -> tuple[int, str]:
    answer = await node.post("/tx", content=arweave.encode_transaction_json(tx))
    return answer.status_code, answer.text


async def post_chunk(node: httpx.AsyncClient, tree: ChunkTree, data: bytes, index: int) -> httpx.Response:
    chunk = tree.chunks[index]
    piece = data[chunk.start : chunk.end]
    upload = ChunkUpload(tree.data_root, tree.data_size, tree.compute_data_path(index), chunk.end - 1, piece)
    return await node.post("/chunk", content=arweave_chunks.encode_chunk(upload))


async def upload(node: httpx.AsyncClient, tx: Transaction, data: bytes) -> None:
    """Header and all chunks, each taken."""
    tree = tree_of(data)
    assert await post(node, tx) == (200, "OK")
    for index in range(len(tree.chunks)):
        assert (await post_chunk(node, tree, data, index)).status_code == 200


async def read_by_chunks(node: httpx.AsyncClient, tx: Transaction) -> bytes:
    """The data of a mined transaction, chunk by chunk, each by its place in the weave and checked by its proof."""
    place = (await node.get(f"/tx/{id_of(tx)}/offset")).json()
    assert place["size"] == str(tx.data_size)
    read, start = b"", int(place["offset"]) - tx.data_size + 1
    while len(read) < tx.data_size:
        chunk = (await node.get(f"/chunk/{start + len(read)}")).json()
        piece = b64(chunk["chunk"])
        proven = arweave_chunks.validate_data_path(tx.data_root, tx.data_size, len(read), b64(chunk["data_path"]))
        assert proven is not None
        assert (proven.data_hash, proven.end - proven.start) == (hashlib.sha256(piece).digest(), len(piece))
        read += piece
    return read
