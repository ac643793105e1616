"""The development gateway is as strict as a node: what it must refuse, and what it must never answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.devnet_gateway import PRICE, VECTORS, id_of, post, post_chunk, read_by_chunks, sign, tree_of
from tests.vector_file import b64, bytes_of
from validator.devnet.gateway.__main__ import main
from validator.devnet.gateway.chunks import StoredData
from validator.devnet.gateway.weave import Weave
from validator.net.arweave.wallet import ArweaveWallet
from validator.protocol.codec import arweave
from validator.protocol.codec.arweave_chunks import CHUNK_BYTES
from validator.protocol.codec.arweave_text import encode_base64url

# --- headers ---


@pytest.mark.parametrize("case", VECTORS["invalid_transactions"], ids=lambda c: str(c["name"]))
async def test_each_broken_transaction_is_refused(case: dict[str, Any], node: httpx.AsyncClient, weave: Weave) -> None:
    answer = await node.post("/tx", json=case["json"])
    texts = {
        "tx_id_not_valid": "Invalid hash.",
        "unknown_split": "The attached data is split in an unknown way.",
    }
    assert (answer.status_code, answer.text) == (400, texts.get(case["error"], "Transaction verification failed."))
    if case["error"] not in texts:
        gone = await node.get(f"/tx/{case['json']['id']}")
        assert (gone.status_code, gone.text) == (410, case["error"])
    assert not weave.entries


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"nonsense", b'{"format": 2}', b"[" * 100_000])
async def test_a_body_that_is_no_transaction_is_refused(body: bytes, node: httpx.AsyncClient) -> None:
    answer = await node.post("/tx", content=body)
    assert (answer.status_code, answer.text) == (400, "Invalid JSON.")


@pytest.mark.parametrize("path", ["/tx", "/chunk", "/graphql"])
async def test_a_body_beyond_the_limit_is_not_read_to_its_end(path: str, node: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * (1 << 20)

    try:
        answer = await node.post(path, content=endless())
    except httpx.TransportError:
        return  # the end of the connection overtook the answer
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")


async def test_a_repeated_header_is_known_and_charged_once(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    tx = sign(wallet, weave)
    assert await post(node, tx) == (200, "OK")
    assert await post(node, tx) == (208, "Transaction already processed.")
    weave.mine(1)
    assert await post(node, tx) == (208, "Transaction already processed.")
    weave.entries[tx.id].accepted_s -= 601
    assert await post(node, tx) == (400, "Transaction is already on the weave.")
    weave.mine(2)
    assert weave.balances[wallet.address] == 99 * PRICE
    assert weave.compute_stats()["spent"] == str(PRICE)


async def test_a_header_that_pays_too_little_or_too_much_is_refused(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    price = int((await node.get("/price/262145")).text)
    cheap = sign(wallet, weave, bytes(262145), reward=price - 1)
    dear = sign(wallet, weave, reward=100 * PRICE + 1)
    for tx, code in ((cheap, "tx_too_cheap"), (dear, "overspend")):
        assert (await post(node, tx))[0] == 400
        assert (await node.get(f"/tx/{id_of(tx)}")).text == code
    assert (await post(node, sign(wallet, weave, bytes(262145), reward=price)))[0] == 200
    rest = sign(wallet, weave, reward=100 * PRICE - price + 1)
    assert (await post(node, rest))[0] == 400, "what pending headers will cost is spent already"


async def test_anchors_follow_the_real_rule(node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet) -> None:
    first = sign(wallet, weave, last_tx=b"")
    assert (await post(node, first))[0] == 200, "a wallet without history may have no anchor"
    mempool = sign(wallet, weave, last_tx=first.id)
    assert await post(node, mempool) == (400, "Invalid anchor (last_tx from mempool).")
    weave.mine(1)
    assert await post(node, sign(wallet, weave, b"x", last_tx=b"")) == (400, "Invalid anchor (last_tx).")
    assert (await post(node, sign(wallet, weave, b"y", last_tx=first.id)))[0] == 200
    old = sign(wallet, weave, b"z")
    for _ in range(43):
        weave.mine(1)
    assert (await post(node, replace(old)))[0] == 200, "the block is the 50th newest"
    late = sign(wallet, weave, b"u", last_tx=old.last_tx)
    weave.mine(1)
    assert await post(node, late) == (400, "Invalid anchor (last_tx).")


async def test_a_header_whose_anchor_expires_in_the_mempool_is_gone(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    tx = sign(wallet, weave, b"x")
    assert (await post(node, tx))[0] == 200
    for _ in range(50):
        weave._add_block(0)  # blocks that had no room for it
    weave.mine(1)
    answer = await node.get(f"/tx/{id_of(tx)}")
    assert (answer.status_code, answer.text) == (410, "invalid_last_tx")
    assert not weave.data


# --- chunks ---


@pytest.mark.parametrize("case", VECTORS["chunk_checks"], ids=lambda c: str(c["name"]))
async def test_each_chunk_is_judged_like_a_node(
    case: dict[str, Any], node: httpx.AsyncClient, weave: Weave, tmp_path: Path
) -> None:
    root, size = b64(case["data_root"]), int(case["data_size"])
    body = {key: case[key] for key in ("data_root", "data_size", "offset", "data_path")}
    body["chunk"] = encode_base64url(bytes_of(case["data"])[slice(*case["chunk_range"])])
    unknown = await node.post("/chunk", json=body)
    assert unknown.status_code == 400
    weave.data[(root, size)] = StoredData(tmp_path / "data", size, weave.clock())
    answer = await node.post("/chunk", json=body)
    if case["error"] is None:
        assert answer.status_code == 200
        assert unknown.json() == {"error": "data_root_not_found"}
        (stored,) = weave.data[(root, size)].chunks.values()
        assert stored.is_kept is case["stored_when_confirmed"]
    else:
        assert (answer.status_code, answer.json()) == (400, {"error": case["error"]})
        assert not weave.data[(root, size)].chunks


@pytest.mark.parametrize(
    "change",
    [{"offset": 5}, {"data_size": 5}, {"chunk": None}, {"chunk": "AA=="}, {"data_root": "A" * 500}, {"offset": "-1"}],
)
async def test_chunk_json_holds_strings_only(change: dict[str, Any], node: httpx.AsyncClient) -> None:
    body = {"data_root": "", "data_size": "1", "data_path": "", "offset": "0", "chunk": ""}
    answer = await node.post("/chunk", json={**body, **change})
    assert (answer.status_code, answer.json()) == (400, {"error": "invalid_json"})


async def test_chunks_in_any_order_and_repeated_give_the_data_and_never_a_part_of_it(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    data = bytes(CHUNK_BYTES) * 2 + os.urandom(100_000)  # two equal chunks
    tree = tree_of(data)
    tx = sign(wallet, weave, data)
    assert (await post(node, tx))[0] == 200
    weave.mine(1)
    raw = f"/raw/{id_of(tx)}"
    for index in (2, 0, 2, 0):
        assert (await post_chunk(node, tree, data, index)).status_code == 200
        assert (await node.get(raw)).status_code == 404
        assert (await node.get(f"/{id_of(tx)}")).status_code == 404
        assert (await node.get(f"/tx/{id_of(tx)}/data")).status_code == 404
    assert (await post_chunk(node, tree, data, 1)).status_code == 200
    assert (await node.get(raw)).content == data
    assert b64((await node.get(f"/tx/{id_of(tx)}/data")).text) == data


async def test_data_of_a_pending_header_is_not_readable_yet(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    tx = sign(wallet, weave, b"x", data=b"x")
    assert (await post(node, tx))[0] == 200
    assert (await node.get(f"/raw/{id_of(tx)}")).status_code == 404
    pending = await node.get(f"/tx/{id_of(tx)}/status")
    assert (pending.status_code, pending.text) == (202, "Pending")
    assert (await node.get(f"/tx/{id_of(tx)}")).status_code == 202
    assert (await node.get(f"/unconfirmed_tx/{id_of(tx)}")).json()["id"] == id_of(tx)
    assert (await node.get("/tx/pending")).json() == [id_of(tx)]
    weave.mine(7)
    assert (await node.get(f"/raw/{id_of(tx)}")).content == b"x"
    assert (await node.get(f"/tx/{id_of(tx)}/status")).json()["number_of_confirmations"] == 1
    weave.mine(7)
    assert (await node.get(f"/tx/{id_of(tx)}/status")).json()["number_of_confirmations"] == 2


async def test_a_layout_that_nodes_do_not_keep_vanishes_when_mined(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    case = next(c for c in VECTORS["chunk_checks"] if c["name"] == "hundred_k_mid")
    tx = sign(wallet, weave, data_size=300_000, data_root=b64(case["data_root"]))
    assert (await post(node, tx))[0] == 200
    body = {key: case[key] for key in ("data_root", "data_size", "offset", "data_path")}
    body["chunk"] = encode_base64url(bytes_of(case["data"])[slice(*case["chunk_range"])])
    assert (await node.post("/chunk", json=body)).status_code == 200
    stored = weave.data[(tx.data_root, 300_000)]
    assert stored.chunks
    weave.mine(1)
    assert not stored.chunks


async def test_ranges_and_weave_offsets_lead_to_the_same_bytes(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    datas = [os.urandom(300_001), os.urandom(5)]
    for data in datas:
        tx, tree = sign(wallet, weave, data), tree_of(data)
        assert (await post(node, tx))[0] == 200
        for index in range(len(tree.chunks)):
            assert (await post_chunk(node, tree, data, index)).status_code == 200
        weave.mine(1)
        assert await read_by_chunks(node, tx) == data
        part = await node.get(f"/raw/{id_of(tx)}", headers={"range": "bytes=1-3"})
        assert (part.status_code, part.content) == (206, data[1:4])
        beyond = await node.get(f"/raw/{id_of(tx)}", headers={"range": f"bytes={len(data)}-"})
        assert beyond.status_code == 416
    assert (await node.get("/chunk/99999999")).status_code == 404
    assert (await node.get("/chunk/0")).status_code == 404


# --- prices, wallets, index ---


async def test_prices_step_with_whole_chunks(node: httpx.AsyncClient, wallet: ArweaveWallet) -> None:
    prices = [int((await node.get(f"/price/{size}")).text) for size in (0, 1, 262144, 262145, 524288)]
    base, step = prices[0], prices[1] - prices[0]
    assert prices == [base, base + step, base + step, base + 2 * step, base + 2 * step]
    known = await node.get(f"/price/0/{encode_base64url(wallet.address)}")
    unknown = await node.get(f"/price/0/{encode_base64url(bytes(32))}")
    assert int(known.text) == base < int(unknown.text)
    assert (await node.get("/price/0", headers={"accept": "application/json"})).json()["fee"] == str(base)
    assert (await node.get("/price/-1")).status_code == 400


async def test_minted_money_is_all_there_is(node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet) -> None:
    other = encode_base64url(bytes(32))
    assert (await node.post(f"/devnet/mint/{other}/5")).text == "5"
    assert (await node.post(f"/devnet/mint/{other}/x")).status_code == 400
    assert (await node.post("/devnet/mint/AA/5")).status_code == 400
    tx = sign(wallet, weave, target=bytes(32), quantity=7)
    assert (await post(node, tx))[0] == 200
    weave.mine(1)
    assert (await node.get(f"/wallet/{other}/balance")).text == "12"
    stats = (await node.get("/devnet/stats")).json()
    assert sum(map(int, stats["balances"].values())) + int(stats["spent"]) == int(stats["minted"])
    assert (await node.get(f"/wallet/{encode_base64url(wallet.address)}/last_tx")).text == id_of(tx)


async def test_what_was_paid_is_counted_per_bundle_root_and_owner(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    tags = arweave.encode_tags([("Bundle-Root", "ab"), ("Bundle-Number", "3")])
    for data in (b"1", b"2"):
        assert (await post(node, sign(wallet, weave, data, data=data, tags=tags)))[0] == 200
    waiting = (await node.get("/devnet/stats")).json()
    assert (waiting["paid"], waiting["headers_accepted"]) == ({}, {"ab": 2})
    weave.mine(1)
    stats = (await node.get("/devnet/stats")).json()
    assert stats["paid"] == {"ab": {encode_base64url(wallet.address): 2}}
    assert [(t["bundle_number"], t["complete"], t["reward"]) for t in stats["transactions"]] == [
        ("3", True, str(PRICE))
    ] * 2


async def test_the_index_filters_and_pages(node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet) -> None:
    ids: list[str] = []
    for number in range(5):
        tags = arweave.encode_tags([("Bundle-Root", "ab" if number % 2 else "cd"), ("Ü", "ż")])
        data = bytes([number])
        tx = sign(wallet, weave, data, data=data, tags=tags)
        assert (await post(node, tx))[0] == 200
        ids.append(id_of(tx))
        if number < 4:
            weave.mine(1)

    async def ask(arguments: str, variables: dict[str, Any] | None = None) -> list[str]:
        query = f"query($v: [String!]) {{ transactions({arguments}) {{ edges {{ cursor node {{ id }} }} }} }}"
        answer = await node.post("/graphql", json={"query": query, "variables": variables or {}})
        return [edge["node"]["id"] for edge in answer.json()["data"]["transactions"]["edges"]]

    assert await ask("sort: HEIGHT_ASC") == ids
    assert await ask("first: 10") == ids[::-1]
    assert await ask('sort: HEIGHT_ASC, tags: [{name: "Bundle-Root", values: $v}]', {"v": ["ab"]}) == [ids[1], ids[3]]
    assert await ask('tags: [{name: "Bundle-Root", values: ["ab"]}, {name: "Ü", values: ["x"]}]') == []
    assert await ask('tags: [{name: "Bundle-Root", values: ["ab"], op: NEQ}], sort: HEIGHT_ASC') == ids[::2]
    assert await ask("owners: $v", {"v": [encode_base64url(bytes(32))]}) == []
    assert len(await ask("owners: $v", {"v": [encode_base64url(wallet.address)]})) == 5
    assert await ask("block: {min: 8, max: 8}") == [ids[1]]
    assert await ask("ids: $v", {"v": [ids[4]]}) == [ids[4]]
    query = (
        "query($a: String) { transactions(sort: HEIGHT_ASC, first: 2, after: $a) "
        "{ pageInfo { hasNextPage } edges { cursor node { id block { height } } } } }"
    )
    seen: list[str] = []
    after = None
    while True:
        page = (await node.post("/graphql", json={"query": query, "variables": {"a": after}})).json()
        page = page["data"]["transactions"]
        seen += [edge["node"]["id"] for edge in page["edges"]]
        after = page["edges"][-1]["cursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert seen == ids
    assert page["edges"][-1]["node"]["block"] is None
    odd = sign(wallet, weave, tags=((b"\xff", b"\xfe"),))
    assert (await post(node, odd))[0] == 200
    assert len(await ask("first: 10")) == 6, "a stranger's tags of no text hide nothing"


@pytest.mark.parametrize(
    "wrong",
    [
        *("", "{", "{ nothing { id } }", "{ transactions { nothing } }", "{" * 500, "mutation { x }", "{ § }"),
        "{ transactions(owner: []) { edges { cursor } } }",
        "{ transactions(sort: NEWEST) { edges { cursor } } }",
        '{ transactions(tags: [{name: "a", value: "b"}]) { edges { cursor } } }',
        '{ transactions(tags: [{name: "a", values: ["b"], op: LIKE}]) { edges { cursor } } }',
        "{ transactions(block: {from: 1}) { edges { cursor } } }",
        '{ transaction(hash: "") { id } }',
        "{ transactions(ids: $v) { edges { cursor } } }",
        "query($a: String) { transactions(ids: $v) { edges { cursor } } }",
        "query Named($a: [String!]!) { transactions(ids: $a) { edges { cursor } } }",
        "query(a: String) { transactions { edges { cursor } } }",
    ],
)
async def test_what_gateways_do_not_understand_is_an_error_and_no_answer(wrong: str, node: httpx.AsyncClient) -> None:
    answer = (await node.post("/graphql", json={"query": wrong, "variables": {"v": []}})).json()
    assert answer["data"] is None
    assert answer["errors"][0]["message"]


# --- paths and process ---


@pytest.mark.parametrize(
    "path", ["/tx/AA", "/tx/AA/status", "/raw/%C3%9C", "/nonsense", "/wallet/=/balance", "/chunk/x"]
)
async def test_odd_paths_get_a_plain_answer(path: str, node: httpx.AsyncClient) -> None:
    assert (await node.get(path)).status_code in (400, 404)


def test_a_folder_or_port_that_can_not_be_had_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["--port-file", str(tmp_path / "port"), "--data", str(tmp_path / "file")]) == 2
    assert main(["--port-file", str(tmp_path / "none" / "port"), "--data", str(tmp_path / "data")]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("gateway: ") for line in lines)


def test_the_process_tells_its_port_mines_by_itself_and_ends_on_request(tmp_path: Path) -> None:
    options = ["--port-file", tmp_path / "port", "--data", tmp_path / "data", "--log", tmp_path / "log"]
    command = [sys.executable, "-m", "validator.devnet.gateway", *map(str, options), "--mine-ms", "20"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        while not (tmp_path / "port").exists() and process.poll() is None:
            time.sleep(0.05)
        url = f"http://127.0.0.1:{int((tmp_path / 'port').read_text())}"
        start = int(httpx.get(f"{url}/height").text)
        while int(httpx.get(f"{url}/height").text) < start + 3:
            time.sleep(0.02)
        assert httpx.post(f"{url}/devnet/mint/{encode_base64url(bytes(32))}/5").text == "5"
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=10)
    assert (process.returncode, output) == (0, b"")
    assert json.loads((tmp_path / "log").read_text().splitlines()[0])["event"] == "mint"
