"""The Arweave gateway as an outsider reads it: transactions, their data, and what was paid."""

from __future__ import annotations

from typing import Any, Protocol

import httpx

from validator.codec.arweave import (
    Transaction,
    build_chunk_tree,
    decode_transaction,
    encode_storage_id,
    verify_transaction,
)
from validator.model import StorageId

MAX_DATA_BYTES = 1 << 30


class Http(Protocol):
    def get_json(self, path: str) -> Any:
        """The JSON answer of a path. Raises ValueError unless the status is 200."""

    def get_bytes(self, path: str, max_bytes: int) -> bytes:
        """The body of a path. Raises ValueError unless the status is 200, or if it is longer than ``max_bytes``."""


class HttpClient:
    """HTTP to one gateway."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.Client(timeout=60.0, trust_env=False)

    def get_json(self, path: str) -> Any:
        answer = self._client.get(self._url + path)
        if answer.status_code != 200:
            raise ValueError(f"gateway: {path}: status {answer.status_code}")
        return answer.json()

    def get_bytes(self, path: str, max_bytes: int) -> bytes:
        pieces = []
        size = 0
        with self._client.stream("GET", self._url + path) as answer:
            if answer.status_code != 200:
                raise ValueError(f"gateway: {path}: status {answer.status_code}")
            for piece in answer.iter_bytes():
                size += len(piece)
                if size > max_bytes:
                    raise ValueError(f"gateway: {path}: more than {max_bytes} bytes")
                pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self._client.close()


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

    def stats(self) -> dict[str, Any]:
        """Transactions, payments per bundle root and owner, balances: the development gateway's own count."""
        stats = self._http.get_json("/devnet/stats")
        if not isinstance(stats, dict):
            raise TypeError("gateway: stats are not an object")
        return stats
