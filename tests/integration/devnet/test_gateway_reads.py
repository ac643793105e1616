"""What readers of the development gateway ask: blocks, ranges, web pages."""

from __future__ import annotations

import os

import httpx
import pytest

from tests.devnet_gateway import id_of, sign, upload
from validator.devnet.gateway.weave import Weave
from validator.net.arweave.wallet import ArweaveWallet
from validator.protocol.codec.arweave_chunks import CHUNK_BYTES
from validator.protocol.codec.arweave_text import encode_base64url

PAGE = {"origin": "https://analyst.example"}


async def test_blocks_are_found_by_height_by_hash_and_as_the_newest(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    data = os.urandom(5)
    tx = sign(wallet, weave, data)
    await upload(node, tx, data)
    await node.post("/devnet/mine/1")
    status = (await node.get(f"/tx/{id_of(tx)}/status")).json()
    block = (await node.get(f"/block/hash/{status['block_indep_hash']}")).json()
    assert (block["height"], block["txs"]) == (status["block_height"], [id_of(tx)])
    assert (block["weave_size"], block["block_size"]) == (str(CHUNK_BYTES),) * 2, "data is padded to whole chunks"
    assert (await node.get(f"/block/height/{block['height']}")).json() == block
    assert (await node.get("/block/current")).json() == block
    before = (await node.get(f"/block/hash/{block['previous_block']}")).json()
    assert (before["height"], before["txs"], before["block_size"]) == (block["height"] - 1, [], "0")
    assert (await node.get("/info")).json()["current"] == block["indep_hash"]


async def test_a_replaced_block_is_found_no_more(node: httpx.AsyncClient) -> None:
    await node.post("/devnet/mine/2")
    replaced = (await node.get("/block/current")).json()
    await node.post("/devnet/fork/1")
    assert (await node.get(f"/block/hash/{replaced['indep_hash']}")).status_code == 404
    other = (await node.get(f"/block/height/{replaced['height']}")).json()
    assert other["indep_hash"] != replaced["indep_hash"]
    assert other["previous_block"] == replaced["previous_block"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/block/height/999999", 404),
        ("/block/height/-1", 400),
        ("/block/height/x", 400),
        (f"/block/hash/{encode_base64url(bytes(48))}", 404),
        (f"/block/hash/{encode_base64url(bytes(49))}", 400),
        ("/block/hash/=", 400),
        ("/block/other", 404),
    ],
)
async def test_blocks_that_are_not_there(path: str, status: int, node: httpx.AsyncClient) -> None:
    assert (await node.get(path)).status_code == status


async def test_a_network_of_one_node_has_no_peers_and_a_clock(node: httpx.AsyncClient) -> None:
    assert (await node.get("/peers")).json() == []
    assert int((await node.get("/time")).text) > 1_600_000_000


async def test_several_ranges_heads_and_tails_of_a_file_are_what_was_asked_for(
    node: httpx.AsyncClient, weave: Weave, wallet: ArweaveWallet
) -> None:
    data = os.urandom(300_001)
    tx = sign(wallet, weave, data)
    await upload(node, tx, data)
    await node.post("/devnet/mine/1")
    url = f"/raw/{id_of(tx)}"
    head = await node.head(url)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(data)), b"")
    assert head.headers["accept-ranges"] == "bytes"
    tail = await node.get(url, headers={"range": "bytes=-8"})
    assert (tail.status_code, tail.content) == (206, data[-8:])
    assert tail.headers["content-range"] == f"bytes {len(data) - 8}-{len(data) - 1}/{len(data)}"
    open_end = await node.get(url, headers={"range": f"bytes={len(data) - 5}-"})
    assert open_end.content == data[-5:]
    several = await node.get(url, headers={"range": "bytes=0-1,262140-262150"})
    assert several.status_code == 206
    assert data[:2] in several.content
    assert data[262140:262151] in several.content
    same = {"range": "bytes=0-3", "if-range": head.headers["etag"]}
    assert (await node.get(url, headers=same)).status_code == 206
    other = await node.get(url, headers={**same, "if-range": '"another"'})
    assert (other.status_code, other.content) == (200, data)


async def test_scripts_of_any_page_may_read_and_no_page_may_use_the_controls(node: httpx.AsyncClient) -> None:
    answer = await node.get("/info", headers=PAGE)
    assert answer.headers["access-control-allow-origin"] == "*"
    asked = {**PAGE, "access-control-request-method": "GET", "access-control-request-headers": "range"}
    preflight = await node.options("/raw/x", headers=asked)
    assert (preflight.status_code, preflight.headers["access-control-allow-headers"]) == (200, "range")
    assert "access-control-allow-origin" not in (await node.get("/devnet/stats", headers=PAGE)).headers
    refused = await node.options("/devnet/mine/1", headers={**asked, "access-control-request-method": "POST"})
    assert refused.status_code == 405
