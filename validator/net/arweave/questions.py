"""What one gateway is asked, and what of its answer is believed: everything bounded, and checked for its kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from validator.net.arweave.gateway import Gateway
from validator.net.http.client import Answer
from validator.ports.storage import StorageState, StorageStatus, StoredTransaction
from validator.protocol.codec import arweave, arweave_text
from validator.protocol.codec.arweave import Transaction
from validator.protocol.errors import MalformedInput, TransientError
from validator.protocol.model import StorageId

MAX_TEXT_BYTES = 4096
MAX_INFO_BYTES = 64 * 1024
MAX_PAGE_BYTES = 4 * 1024 * 1024
MAX_PAGES = 5
PAGE_ITEMS = 100
MAX_HEIGHT = 1 << 40

_NO_INDEX = (404, 405)
"""What a node without an index answers to a question for it."""
_UPLOADS_QUERY = (
    "query($owners:[String!]!,$tags:[TagFilter!]!,$after:String){transactions(owners:$owners,tags:$tags,first:100,"
    "after:$after,sort:HEIGHT_ASC){pageInfo{hasNextPage} edges{cursor node{id owner{address} tags{name value} "
    "block{height} bundledIn{id}}}}}"
)


def parse_number(answer: Answer, field_name: str, *, lowest: int = 0) -> int:
    number = arweave_text.decode_integer(answer.body.decode("ascii", errors="replace"), field_name, max_digits=24)
    if number < lowest:
        raise MalformedInput(field_name, f"{number} is below {lowest}")
    return number


def ask_height(gateway: Gateway) -> int:
    answer = gateway.get("/info", max_bytes=MAX_INFO_BYTES, json=True)
    height = arweave_text.decode_json_object(answer.body, "info", max_bytes=MAX_INFO_BYTES).get("height")
    if type(height) is not int or not 0 <= height < MAX_HEIGHT:
        raise MalformedInput("info.height", "no height")
    return height


def ask_status(gateway: Gateway, storage_id: StorageId) -> StorageStatus:
    path = f"/tx/{arweave_text.encode_storage_id(storage_id)}/status"
    answer = gateway.get(path, max_bytes=MAX_TEXT_BYTES, accept=(200, 202, 404, 410), json=True)
    if answer.status == 202:
        return StorageStatus(StorageState.PENDING)
    if answer.status != 200:
        return StorageStatus(StorageState.MISSING)
    if answer.body.strip() == b"Pending":
        return StorageStatus(StorageState.PENDING)
    body = arweave_text.decode_json_object(answer.body, "status", max_bytes=MAX_TEXT_BYTES)
    height, confirmations = body.get("block_height"), body.get("number_of_confirmations")
    for name, value in (("block_height", height), ("number_of_confirmations", confirmations)):
        if type(value) is not int or not 0 <= value < MAX_HEIGHT:
            raise MalformedInput(f"status.{name}", "no number")
    return StorageStatus(StorageState.CONFIRMED, int(confirmations or 0), int(height or 0))


def ask_transaction(gateway: Gateway, storage_id: StorageId) -> StoredTransaction:
    return stored(_ask_signed(gateway, storage_id, "tx"))


def ask_header(gateway: Gateway, storage_id: StorageId) -> bytes:
    try:
        tx = _ask_signed(gateway, storage_id, "tx")
    except TransientError:
        tx = _ask_signed(gateway, storage_id, "unconfirmed_tx")
    return arweave.encode_transaction_json(tx).encode()


def _ask_signed(gateway: Gateway, storage_id: StorageId, route: str) -> Transaction:
    path = f"/{route}/{arweave_text.encode_storage_id(storage_id)}"
    answer = gateway.get(path, max_bytes=arweave.MAX_HEADER_JSON_BYTES, accept=(200, 202, 404, 410), json=True)
    if answer.status != 200:
        raise TransientError(f"{gateway.host}: HTTP {answer.status}, not confirmed here", host=gateway.host)
    tx = arweave.decode_transaction_json(answer.body)
    arweave.verify_transaction(tx, storage_id)
    return tx


def stored(tx: Transaction) -> StoredTransaction:
    return StoredTransaction(tx.id, tx.address, tx.tag_texts, tx.data_size, tx.data_root)


def ask_uploads(gateway: Gateway, bundle_root: str, addresses: Sequence[str]) -> list[tuple[StorageId, int]]:
    """Transactions that the gateway lists, with their heights; data items inside others have no header to be read."""
    found: list[tuple[StorageId, int]] = []
    after: str | None = None
    for _ in range(MAX_PAGES):
        variables = {
            "owners": list(addresses),
            "tags": [{"name": "Bundle-Root", "values": [bundle_root]}],
            "after": after,
        }
        body = json.dumps({"query": _UPLOADS_QUERY, "variables": variables}).encode()
        accept = (200, *_NO_INDEX)
        answer = gateway.post("/graphql", body, max_bytes=MAX_PAGE_BYTES, accept=accept, has_effect=False)
        if answer.status != 200:
            return found
        page = _parse_page(arweave_text.decode_json_object(answer.body, "graphql", max_bytes=MAX_PAGE_BYTES))
        edges = page["edges"]
        for node in (edge["node"] for edge in edges):
            tags = [(tag["name"], tag["value"]) for tag in node["tags"]]
            is_item = node["bundledIn"] is not None
            if not is_item and node["owner"]["address"] in addresses and ("Bundle-Root", bundle_root) in tags:
                height = node["block"]["height"] if node["block"] else MAX_HEIGHT
                found.append((arweave_text.decode_storage_id(node["id"], "graphql.id"), int(height)))
        if not page["pageInfo"]["hasNextPage"] or not edges:
            return found
        after = str(edges[-1]["cursor"])
    return found


def _parse_page(body: dict[str, Any]) -> dict[str, Any]:
    """The page of a GraphQL answer, every part that is used checked for its kind. Raises MalformedInput."""
    if body.get("errors"):
        raise MalformedInput("graphql.errors", str(body["errors"])[:200])
    try:
        page: dict[str, Any] = body["data"]["transactions"]
        edges = page["edges"]
        sound = (
            isinstance(edges, list) and len(edges) <= PAGE_ITEMS and isinstance(page["pageInfo"]["hasNextPage"], bool)
        )
        for edge in edges if sound else ():
            node = edge["node"]
            texts = [node["id"], node["owner"]["address"], edge["cursor"]]
            texts += [tag[key] for tag in node["tags"] for key in ("name", "value")]
            texts += [] if node["bundledIn"] is None else [node["bundledIn"]["id"]]
            is_block_sound = node["block"] is None or type(node["block"]["height"]) is int
            sound = sound and is_block_sound and all(isinstance(text, str) for text in texts)
    except (KeyError, TypeError, IndexError) as error:
        raise MalformedInput("graphql", "not the page that was asked for") from error
    if not sound:
        raise MalformedInput("graphql", "not the page that was asked for")
    return page
