"""The development gateway's GraphQL: late where it is told to be, and with the data items inside bundles."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import httpx
import pytest

from tests import data_items, paths
from tests.conformance.ans104 import Items
from tests.devnet_gateway import id_of, post, sign
from tests.vector_file import b64
from validator.devnet.gateway.ans104 import decode_bundle
from validator.devnet.gateway.bundled import MAX_DEPTH
from validator.devnet.gateway.weave import Weave
from validator.net.arweave.wallet import ArweaveWallet
from validator.protocol.codec import arweave
from validator.protocol.codec.arweave import Transaction
from validator.protocol.codec.arweave_text import encode_base64url

ANS104: dict[str, Any] = json.loads((paths.VECTORS / "ans104.json").read_text())
ITEMS = Items(ANS104)
MARKS = arweave.encode_tags(data_items.MARKS)
SIGNATURE_BYTES = {1: 512, 2: 64, 3: 65, 4: 64, 7: 65}
FIELDS = "id owner { address } tags { name value } data { size } fee { winston } bundledIn { id } block { height }"


async def ask(node: httpx.AsyncClient, arguments: str = "", /, **variables: Any) -> list[dict[str, Any]]:
    given = f"({arguments})" if arguments else ""
    query = f"query($v: [String!]) {{ transactions{given} {{ edges {{ node {{ {FIELDS} }} }} }} }}"
    answer = await node.post("/graphql", json={"query": query, "variables": variables})
    return [edge["node"] for edge in answer.json()["data"]["transactions"]["edges"]]


async def upload_bundle(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet, raw: bytes, tags: Any = MARKS
) -> Transaction:
    tx = sign(wallet, weave, raw, data=raw, tags=tags)
    assert await post(node, tx) == (200, "OK")
    return tx


def bundle(name: str) -> bytes:
    return ITEMS.bundle_bytes(ITEMS.bundles[name])


async def test_an_index_that_lags_hides_what_is_pending_and_what_is_new(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    old, new, pending = (sign(wallet, weave, data, data=data) for data in (b"1", b"2", b"3"))
    for tx in (old, new):
        assert await post(node, tx) == (200, "OK")
        await node.post("/devnet/mine/1")
    assert await post(node, pending) == (200, "OK")

    async def seen() -> list[str]:
        return [row["id"] for row in await ask(node, "sort: HEIGHT_ASC")]

    assert await seen() == [id_of(old), id_of(new), id_of(pending)]
    await node.post("/devnet/lag/1")
    assert await seen() == [id_of(old)]
    query = {"query": f'{{ transaction(id: "{id_of(new)}") {{ id }} }}'}
    assert (await node.post("/graphql", json=query)).json() == {"data": {"transaction": None}}
    assert (await node.get(f"/raw/{id_of(new)}")).content == b"2", "the data is there, whatever the index knows"
    await node.post("/devnet/mine/1")
    assert await seen() == [id_of(old), id_of(new)]
    await node.post("/devnet/lag/0")
    assert len(await seen()) == 3


async def test_items_inside_a_bundle_are_found_and_read_like_transactions(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    raw = bundle("three")
    items = decode_bundle(raw)
    tx = await upload_bundle(node, weave, wallet, raw)
    assert [row["id"] for row in await ask(node)] == [id_of(tx)], "a pending bundle is not opened"
    await node.post("/devnet/mine/1")

    rows = await ask(node, "bundledIn: $v, sort: HEIGHT_ASC", v=[id_of(tx)])
    assert [row["id"] for row in rows] == [encode_base64url(item.id) for item in items]
    for row, item in zip(rows, items, strict=True):
        assert row["bundledIn"] == {"id": id_of(tx)}
        assert row["block"] == {"height": weave.tip.height}
        assert row["fee"] == {"winston": "0"}, "its carrier has paid"
        assert row["data"] == {"size": str(len(item.data))}
        assert [(t["name"].encode(), t["value"].encode()) for t in row["tags"]] == list(item.tags)
        assert await ask(node, "owners: $v", v=[row["owner"]["address"]])
        assert await ask(node, "ids: $v", v=[row["id"]]) == [row]
        read = await node.get(f"/raw/{row['id']}")
        assert (read.status_code, read.content) == (200, item.data)
        part = await node.get(f"/{row['id']}", headers={"range": "bytes=1-2"})
        assert (part.status_code, part.content) == (206, item.data[1:3])
    (parent,) = [row for row in await ask(node) if row["id"] == id_of(tx)]
    assert parent["bundledIn"] is None
    assert await ask(node, "bundledIn: $v", v=[encode_base64url(bytes(32))]) == []

    await node.post("/devnet/fork/1")
    assert await ask(node, "bundledIn: $v", v=[id_of(tx)]) == []
    assert (await node.get(f"/raw/{rows[0]['id']}")).status_code == 404


async def test_items_inside_an_item_are_found_in_that_item_and_each_once(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    tx = await upload_bundle(node, weave, wallet, bundle("nested"))
    await node.post("/devnet/mine/1")
    outer, inner = (ITEMS.items[name]["id"] for name in ("ethereum/nested_bundle", "ethereum/plain"))
    rows = await ask(node, "sort: HEIGHT_ASC")
    assert [(row["id"], row["bundledIn"]) for row in rows] == [
        (id_of(tx), None),
        (outer, {"id": id_of(tx)}),
        (inner, {"id": outer}),
    ]
    assert [row["id"] for row in await ask(node, "bundledIn: $v", v=[outer])] == [inner]
    assert (await node.get(f"/raw/{inner}")).content == b"hello"

    deep = data_items.make_item(wallet, [], b"deep")
    for _ in range(MAX_DEPTH):
        deep = data_items.make_item(wallet, data_items.MARKS, data_items.encode_bundle([deep]))
    await upload_bundle(node, weave, wallet, data_items.encode_bundle([deep]))
    await node.post("/devnet/mine/1")
    assert len(await ask(node)) == 4 + MAX_DEPTH, "the innermost stays packed"


async def test_pages_go_on_in_the_middle_of_a_bundle(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    await upload_bundle(node, weave, wallet, bundle("three"))
    await node.post("/devnet/mine/1")
    whole = [row["id"] for row in await ask(node, "sort: HEIGHT_ASC")]
    assert len(whole) == 4
    query = (
        "query($a: String) { transactions(sort: HEIGHT_ASC, first: 1, after: $a) "
        "{ pageInfo { hasNextPage } edges { cursor node { id } } } }"
    )
    seen, after, more = [], None, True
    while more:
        answer = await node.post("/graphql", json={"query": query, "variables": {"a": after}})
        page = answer.json()["data"]["transactions"]
        (edge,) = page["edges"]
        seen.append(edge["node"]["id"])
        after, more = edge["cursor"], page["pageInfo"]["hasNextPage"]
    assert seen == whole


@pytest.mark.parametrize("case", ANS104["invalid_bundles"], ids=lambda case: str(case["name"]))
async def test_what_only_says_that_it_is_a_bundle_is_a_transaction_and_nothing_else(
    case: dict[str, Any], node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    raw = b64(case["raw_b64"])
    tx = await upload_bundle(node, weave, wallet, raw)
    await node.post("/devnet/mine/1")
    assert [row["id"] for row in await ask(node)] == [id_of(tx)]
    assert (await node.get(f"/raw/{id_of(tx)}")).content == raw


def wrap(item: bytes) -> bytes:
    """A bundle of this item alone, which it names truly."""
    signature = item[2 : 2 + SIGNATURE_BYTES.get(int.from_bytes(item[:2], "little"), 0)]
    entry = len(item).to_bytes(32, "little") + hashlib.sha256(signature).digest()
    return (1).to_bytes(32, "little") + entry + item


@pytest.mark.parametrize("case", ANS104["items"], ids=lambda case: str(case["name"]))
async def test_every_kind_of_item_is_found_under_its_id(
    case: dict[str, Any], node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    await upload_bundle(node, weave, wallet, wrap(ITEMS.item_bytes(case)))
    await node.post("/devnet/mine/1")
    assert case["id"] in [row["id"] for row in await ask(node)]


@pytest.mark.parametrize("case", ANS104["invalid_items"], ids=lambda case: str(case["name"]))
async def test_one_unsound_item_leaves_its_bundle_closed(
    case: dict[str, Any], node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    tx = await upload_bundle(node, weave, wallet, wrap(b64(case["raw_b64"])))
    await node.post("/devnet/mine/1")
    assert [row["id"] for row in await ask(node)] == [id_of(tx)]


async def test_without_both_marks_nothing_is_opened(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    for tags in (
        (),
        MARKS[:1],
        MARKS[1:],
        arweave.encode_tags([("Bundle-Format", "json"), ("Bundle-Version", "2.0.0")]),
    ):
        await upload_bundle(node, weave, wallet, bundle("one"), tags)
    await node.post("/devnet/mine/1")
    assert len(await ask(node)) == 4
