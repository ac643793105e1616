"""GraphQL over the weave, as gateways index it: late, and with what is inside bundles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from validator.devnet.gateway import graphql
from validator.devnet.gateway.bundled import Bundled, Child
from validator.devnet.gateway.faults import FaultKind
from validator.devnet.gateway.weave import Entry, Weave, show_tags
from validator.protocol.codec import arweave_text
from validator.protocol.codec.arweave import compute_address
from validator.protocol.codec.arweave_text import encode_base64url
from validator.protocol.errors import MalformedInput

PAGE_ROWS = 100
DEFAULT_PAGE_ROWS = 10
ARGUMENTS = {
    "transaction": {"id"},
    "transactions": {"ids", "owners", "recipients", "tags", "bundledIn", "block", "first", "after", "sort"},
}
"""What may be said of each query; a word that gateways do not know is refused here as there."""
WORDS = {"sort": {None, "HEIGHT_ASC", "HEIGHT_DESC"}, "op": {None, "EQ", "NEQ"}}


@dataclass(frozen=True, slots=True)
class Row:
    """A transaction, or a data item inside one."""

    id: bytes
    owner: bytes
    target: bytes
    anchor: bytes
    signature: bytes
    tags: tuple[tuple[bytes, bytes], ...]
    size: int
    entry: Entry
    """The transaction that it is, or that it is in."""
    number: int = 0
    """Of an item in its transaction, from 1."""
    parent: bytes = b""
    """Of an item: the transaction, or the item, whose data it is in."""

    @property
    def address(self) -> str:
        return encode_base64url(compute_address(self.owner))

    @property
    def cursor(self) -> str:
        return f"{self.entry.sequence}.{self.number}"

    @property
    def place(self) -> tuple[int, int, int]:
        """Pending ones come after all blocks."""
        height = self.entry.height
        return (height if height is not None else 1 << 62, self.entry.sequence, self.number)


class Index:
    """Answers queries from the weave's present state, or from what it was ``lag_blocks`` ago."""

    def __init__(self, weave: Weave, bundled: Bundled) -> None:
        self.weave = weave
        self.bundled = bundled
        self.lag_blocks = 0
        """What is pending or in newer blocks than that is not indexed yet."""

    def answer(self, call: Mapping[str, Any], lie: FaultKind | None = None) -> dict[str, Any]:
        """Data, or errors, of one call; GraphQL says either with status 200. ``lie``: what is wrong with its rows."""
        try:
            fields = graphql.parse(str(call.get("query", "")), call.get("variables") or {})
            return {"data": {f.key: graphql.project(self._resolve(f, lie), f.fields) for f in fields}}
        except (MalformedInput, ValueError, TypeError, AttributeError, KeyError) as error:
            return {"data": None, "errors": [{"message": str(error)}]}

    def _resolve(self, query: graphql.Field, lie: FaultKind | None) -> Any:
        _check_words(query)
        if query.name == "transaction":
            wanted = arweave_text.decode_storage_id(query.arguments["id"])
            return next((self._describe(row) for row in self._rows() if row.id == wanted), None)
        if query.name == "transactions":
            return _tell(self._page(query.arguments), lie)
        raise graphql.QueryError(f"no field {query.name}")

    def _rows(self) -> Iterator[Row]:
        for entry in self.weave.entries.values():
            if not self._is_indexed(entry):
                continue
            tx = entry.tx
            yield Row(tx.id, tx.owner, tx.target, tx.last_tx, tx.signature, tx.tags, tx.data_size, entry)
            for child in self.bundled.children(entry):
                yield _row_of(child, entry)

    def _is_indexed(self, entry: Entry) -> bool:
        if not self.lag_blocks:
            return True
        return entry.height is not None and self.weave.tip.height - entry.height >= self.lag_blocks

    def _page(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        rows = sorted((row for row in self._rows() if _matches(row, wanted)), key=lambda row: row.place)
        if wanted.get("sort") != "HEIGHT_ASC":
            rows.reverse()
        after = wanted.get("after")
        if after:
            cursors = [row.cursor for row in rows]
            rows = rows[cursors.index(after) + 1 :] if after in cursors else []
        first = min(int(wanted.get("first") or DEFAULT_PAGE_ROWS), PAGE_ROWS)
        return {
            "count": str(len(rows)),
            "pageInfo": {"hasNextPage": len(rows) > first},
            "edges": [{"cursor": row.cursor, "node": self._describe(row)} for row in rows[:first]],
        }

    def _describe(self, row: Row) -> dict[str, Any]:
        tags = show_tags(row.tags)
        types = [value for name, value in tags if name == "Content-Type"]
        height, tx = row.entry.height, row.entry.tx
        block = self.weave.blocks[height] if height is not None else None
        return {
            "id": encode_base64url(row.id),
            "anchor": encode_base64url(row.anchor),
            "signature": encode_base64url(row.signature),
            "recipient": encode_base64url(row.target),
            "owner": {"address": row.address, "key": encode_base64url(row.owner)},
            "fee": {"winston": "0" if row.number else str(tx.reward)},
            "quantity": {"winston": "0" if row.number else str(tx.quantity)},
            "data": {"size": str(row.size), "type": types[0] if types else None},
            "tags": [{"name": name, "value": value} for name, value in tags],
            "block": block
            and {
                "id": encode_base64url(block.hash),
                "height": block.height,
                "timestamp": block.timestamp_s,
                "previous": encode_base64url(block.previous),
            },
            "bundledIn": {"id": encode_base64url(row.parent)} if row.number else None,
        }


def _check_words(query: graphql.Field) -> None:
    strange: set[Any] = set(query.arguments) - ARGUMENTS.get(query.name, set())
    for rule in query.arguments.get("tags") or []:
        strange |= set(rule) - {"name", "values", "op"}
        strange |= {rule.get("op")} - WORDS["op"]
    strange |= set(query.arguments.get("block") or {}) - {"min", "max"}
    strange |= {query.arguments.get("sort")} - WORDS["sort"]
    if strange:
        raise graphql.QueryError(f"no argument {min(map(str, strange))} of {query.name}")


def _row_of(child: Child, entry: Entry) -> Row:
    item = child.item
    return Row(
        item.id,
        item.owner,
        item.target,
        item.anchor,
        item.signature,
        item.tags,
        len(item.data),
        entry,
        child.number,
        child.parent,
    )


def _matches(row: Row, wanted: Mapping[str, Any]) -> bool:
    """Filters are all to hold; of the values of one, any."""
    parent = encode_base64url(row.parent) if row.number else None
    for name, value in (
        ("ids", encode_base64url(row.id)),
        ("owners", row.address),
        ("recipients", encode_base64url(row.target)),
        ("bundledIn", parent),
    ):
        values = wanted.get(name)
        if values is not None and value not in values:
            return False
    block, height = wanted.get("block") or {}, row.entry.height
    if block and (height is None or not block.get("min", 0) <= height <= block.get("max", 1 << 62)):
        return False
    tags = show_tags(row.tags)
    for rule in wanted.get("tags") or []:
        is_there = any(name == rule["name"] and value in rule["values"] for name, value in tags)
        if is_there is (rule.get("op") == "NEQ"):
            return False
    return True


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
