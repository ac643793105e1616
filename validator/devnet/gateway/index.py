"""GraphQL over the weave, as gateways index it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from validator.devnet.gateway import graphql
from validator.devnet.gateway.faults import FaultKind
from validator.devnet.gateway.weave import Entry, Weave, text_tags
from validator.protocol.codec import arweave
from validator.protocol.codec.arweave import encode_base64url
from validator.protocol.errors import MalformedInput

PAGE_TRANSACTIONS = 100


class Index:
    """Answers queries from the weave's present state."""

    def __init__(self, weave: Weave) -> None:
        self.weave = weave

    def answer(self, call: Mapping[str, Any], lie: FaultKind | None = None) -> dict[str, Any]:
        """Data, or errors, of one call; GraphQL says either with status 200. ``lie``: what is wrong with its rows."""
        try:
            fields = graphql.parse(str(call.get("query", "")), call.get("variables") or {})
            return {"data": {f.key: graphql.project(self._resolve(f, lie), f.fields) for f in fields}}
        except (MalformedInput, ValueError, TypeError, AttributeError, KeyError) as error:
            return {"data": None, "errors": [{"message": str(error)}]}

    def _resolve(self, query: graphql.Field, lie: FaultKind | None) -> Any:
        if query.name == "transaction":
            entry = self.weave.entries.get(arweave.decode_storage_id(query.arguments["id"]))
            return None if entry is None else self._describe(entry)
        if query.name == "transactions":
            return _tell(self._page(query.arguments), lie)
        raise graphql.QueryError(f"no field {query.name}")

    def _page(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        entries = [entry for entry in self.weave.entries.values() if self._matches(entry, wanted)]
        ascending = wanted.get("sort") == "HEIGHT_ASC"
        entries.sort(key=lambda e: (e.height if e.height is not None else 1 << 62, e.sequence), reverse=not ascending)
        after = wanted.get("after")
        if after:
            cursors = [str(entry.sequence) for entry in entries]
            entries = entries[cursors.index(after) + 1 :] if after in cursors else []
        first = min(int(wanted.get("first") or 10), PAGE_TRANSACTIONS)
        return {
            "count": str(len(entries)),
            "pageInfo": {"hasNextPage": len(entries) > first},
            "edges": [{"cursor": str(e.sequence), "node": self._describe(e)} for e in entries[:first]],
        }

    def _matches(self, entry: Entry, wanted: Mapping[str, Any]) -> bool:
        tx = entry.tx
        ids, owners, recipients = wanted.get("ids"), wanted.get("owners"), wanted.get("recipients")
        if ids is not None and encode_base64url(tx.id) not in ids:
            return False
        if owners is not None and encode_base64url(tx.address) not in owners:
            return False
        if recipients is not None and encode_base64url(tx.target) not in recipients:
            return False
        if wanted.get("bundledIn"):
            return False
        block = wanted.get("block") or {}
        if block and (entry.height is None or not block.get("min", 0) <= entry.height <= block.get("max", 1 << 62)):
            return False
        tags = text_tags(tx)
        for rule in wanted.get("tags") or []:
            is_there = any(name == rule["name"] and value in rule["values"] for name, value in tags)
            if is_there is (rule.get("op") == "NEQ"):
                return False
        return True

    def _describe(self, entry: Entry) -> dict[str, Any]:
        tx = entry.tx
        types = [value for name, value in text_tags(tx) if name == "Content-Type"]
        block = self.weave.blocks[entry.height] if entry.height is not None else None
        return {
            "id": encode_base64url(tx.id),
            "anchor": encode_base64url(tx.last_tx),
            "signature": encode_base64url(tx.signature),
            "recipient": encode_base64url(tx.target),
            "owner": {"address": encode_base64url(tx.address), "key": encode_base64url(tx.owner)},
            "fee": {"winston": str(tx.reward)},
            "quantity": {"winston": str(tx.quantity)},
            "data": {"size": str(tx.data_size), "type": types[0] if types else None},
            "tags": [{"name": name, "value": value} for name, value in text_tags(tx)],
            "block": block
            and {"id": encode_base64url(block.hash), "height": block.height, "timestamp": block.timestamp_s},
            "bundledIn": None,
        }


def _tell(page: dict[str, Any], lie: FaultKind | None) -> dict[str, Any]:
    """A page as a lying index gives it."""
    edges = page["edges"]
    if lie is FaultKind.DUPLICATE_ROWS:
        edges = [edge for edge in edges for _ in range(2)]
    elif lie is FaultKind.FORGED_ROWS:
        edges = [told for edge in edges for told in (_forge(edge), edge)]
    return {**page, "edges": edges}


def _forge(edge: dict[str, Any]) -> dict[str, Any]:
    """A row with everything that was asked for, for a transaction that nobody ever made."""
    forged = hashlib.sha256(edge["node"]["id"].encode()).digest()
    return {**edge, "node": {**edge["node"], "id": encode_base64url(forged)}}
