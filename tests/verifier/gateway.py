"""The Arweave gateway as an outsider reads it: transactions, their data, and what was paid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import httpx

from tests.verifier.findings import Unreachable
from validator.protocol.codec.arweave import Transaction, decode_transaction, verify_transaction
from validator.protocol.codec.arweave_chunks import build_chunk_tree
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.model import StorageId

MAX_DATA_BYTES = 1 << 30


class Http(Protocol):
    """All raise Unreachable where nothing answers, and ValueError unless the status is 200."""

    def get_json(self, path: str) -> Any:
        """The JSON answer of a path."""

    def post_json(self, path: str, body: Any) -> Any:
        """The JSON answer to a JSON body."""

    def get_bytes(self, path: str, max_bytes: int) -> bytes:
        """The body of a path. Raises ValueError too if it is longer than ``max_bytes``."""


class HttpClient:
    """HTTP to one gateway."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.Client(timeout=60.0, trust_env=False)

    def get_json(self, path: str) -> Any:
        with self._reaching():
            answer = self._client.get(self._url + path)
        return _json_of(answer, path)

    def post_json(self, path: str, body: Any) -> Any:
        with self._reaching():
            answer = self._client.post(self._url + path, json=body)
        return _json_of(answer, path)

    def get_bytes(self, path: str, max_bytes: int) -> bytes:
        pieces = []
        size = 0
        with self._reaching(), self._client.stream("GET", self._url + path) as answer:
            if answer.status_code != 200:
                raise ValueError(f"gateway: {path}: status {answer.status_code}")
            for piece in answer.iter_bytes():
                size += len(piece)
                if size > max_bytes:
                    raise ValueError(f"gateway: {path}: more than {max_bytes} bytes")
                pieces.append(piece)
        return b"".join(pieces)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            raise Unreachable(f"the Arweave gateway at {self._url} does not answer: {type(error).__name__}") from error

    def close(self) -> None:
        self._client.close()


def _json_of(answer: httpx.Response, path: str) -> Any:
    if answer.status_code != 200:
        raise ValueError(f"gateway: {path}: status {answer.status_code}")
    return answer.json()


class Gateway:
    def __init__(self, http: Http) -> None:
        self._http = http

    def transaction(self, storage_id: StorageId) -> Transaction:
        """A mined transaction whose id, signature and rules hold."""
        transaction = decode_transaction(self._http.get_json(f"/tx/{encode_storage_id(storage_id)}"))
        verify_transaction(transaction, storage_id)
        return transaction

    def data(self, transaction: Transaction) -> bytes:
        """All bytes of a transaction, in agreement with its size and data root."""
        if transaction.data_size > MAX_DATA_BYTES:
            raise ValueError(f"{transaction.data_size} bytes are more than a check reads")
        data = self._http.get_bytes(f"/raw/{encode_storage_id(transaction.id)}", transaction.data_size)
        tree = build_chunk_tree(len(data), lambda start, end: data[start:end])
        if len(data) != transaction.data_size or tree.data_root != transaction.data_root:
            raise ValueError(f"data of {encode_storage_id(transaction.id)} is not what its transaction signed")
        return data

    def price(self, size: int) -> int:
        """What the gateway asks for so many bytes, winston."""
        return int(self._http.get_json(f"/price/{size}"))

    def mined_ms(self, storage_id: StorageId) -> int:
        """When a transaction was mined: the second of its block, Unix ms. Raises LookupError if it is in none."""
        name = encode_storage_id(storage_id)
        query = "query($ids: [ID!]) { transactions(ids: $ids) { edges { node { id block { height timestamp } } } } }"
        answer = self._http.post_json("/graphql", {"query": query, "variables": {"ids": [name]}})
        for edge in answer["data"]["transactions"]["edges"]:
            if edge["node"]["id"] == name and edge["node"]["block"] is not None:
                return int(edge["node"]["block"]["timestamp"]) * 1000
        raise LookupError(f"transaction {name} is in no block")

    def stats(self) -> dict[str, Any]:
        """Transactions, payments per bundle root and owner, balances: the development gateway's own count."""
        stats = self._http.get_json("/devnet/stats")
        if not isinstance(stats, dict):
            raise TypeError("gateway: stats are not an object")
        return stats
