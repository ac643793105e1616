"""The explorer's pages over HTTP: what they say, that nothing from outside becomes markup, and that all is bounded."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.asgi import AsgiClient
from tests.builders import GENESIS_MS
from tests.explorer_world import BUNDLES, HOSTILE, OTHER, PART, SILENT, STREAM, ExplorerWorld, a_reading, address_of
from validator.broker.explorer.pieces import address
from validator.protocol.codec.arweave_text import decode_base64url, encode_storage_id
from validator.protocol.codec.stored_message import decode_stored
from validator.protocol.model import ContentType, SignatureType
from validator.protocol.proof import verify_message

MIB = 1 << 20


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExplorerWorld]:
    world = ExplorerWorld(tmp_path_factory.mktemp("explorer"))
    yield world
    world.close()


@pytest.fixture(scope="module")
def client(world: ExplorerWorld) -> AsgiClient:
    return AsgiClient(world.app)


def evidence_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(r"<script type=application/json id=evidence>(.*?)</script>", page)
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_first_page_says_what_is_stored_and_how_far_it_is_certified(client: AsgiClient) -> None:
    page = client.get("/explorer/").text
    assert "<dt>Streams</dt><dd>3<small>registered" in page
    assert f"<a href='bundle?number={BUNDLES - 1}'>#{BUNDLES - 1}</a>" in page
    assert "<dt>Certified until</dt><dd><time datetime='2023-11-14T22:13:44.000Z'" in page
    assert f"<bdi>{STREAM}</bdi>" in page
    assert "<div class=rate" in page
    assert "66 from 2023-11-14 22:04:10 to 2023-11-14 22:14:10 UTC" in page


def test_streams_are_found_by_a_part_of_their_id(client: AsgiClient) -> None:
    page = client.get("/explorer/", {"q": "weather"}).text
    assert "<dt>Streams</dt><dd>1<small>of this name" in page
    assert "No such stream" in client.get("/explorer/", {"q": "<b>"}).text


def test_a_stream_shows_its_newest_messages_first_and_where_certificates_end(client: AsgiClient) -> None:
    page = client.get("/explorer/stream", {"id": STREAM}).text
    lines = re.findall(r"timestamp=(\d+)", page)
    assert lines == sorted(lines, reverse=True)
    assert len(lines) == 50
    assert page.index(f"timestamp={GENESIS_MS + 24_000}") < page.index("<li class=edge>")
    assert page.index("<li class=edge>") < page.index(f"timestamp={GENESIS_MS + 23_500}")


def test_from_a_time_on_messages_follow_page_by_page_each_once(client: AsgiClient, world: ExplorerWorld) -> None:
    path, seen = html.unescape(address("/explorer/stream", id=STREAM, partition=0, at="2023-11-14T22:13:20")), []
    while path:
        page = client.get(path).text
        seen += re.findall(r"leaf=([0-9a-f]{64})", page)
        (*_, path) = ["", *re.findall(r"<a href='(stream\?[^']*)'>Later", page)]
        path = f"/explorer/{html.unescape(path)}" if path else ""
    held = [r for r in (*world.certified, world.late, *world.tail) if r.message.stream_part == PART]
    assert seen == [record.leaf.hex() for record in sorted(held, key=lambda r: r.order)]


def test_a_partition_without_messages_says_so(client: AsgiClient) -> None:
    assert "No messages yet" in client.get("/explorer/stream", {"id": STREAM, "partition": "1"}).text


def test_a_message_brings_what_proves_it_and_is_not_called_checked(client: AsgiClient, world: ExplorerWorld) -> None:
    for record in (world.certified[3], world.late):
        page = client.get(address_of(record)).text
        assert "Not checked by your browser" in page
        assert "data-state=good" not in page
        evidence = evidence_of(page)
        stored = decode_stored(decode_base64url(evidence["stored"], "stored", max_bytes=MIB))
        assert stored.canonical == record.canonical
        verify_message(stored.proof, stored.canonical, world.world.root_of(stored.number))
        steps = re.findall(r"data-step=(\w+)", page)
        assert steps == ["signature", "message", "entry", "window", "certificate", "bundle", "contract"]


def test_a_message_of_the_tail_has_no_proof_yet(client: AsgiClient, world: ExplorerWorld) -> None:
    page = client.get(address_of(world.tail[-1])).text
    assert "Not certified yet" in page
    evidence = evidence_of(page)
    assert (evidence["stored"], evidence["certificate"]) == (None, None)
    assert decode_base64url(evidence["canonical"], "canonical", max_bytes=MIB) == world.tail[-1].canonical


def test_bundles_are_listed_with_their_arweave_ids_and_shown_whole(client: AsgiClient, world: ExplorerWorld) -> None:
    page = client.get("/explorer/bundles").text
    ids = [encode_storage_id(report.storage_id) for report in world.world.chain.reports]
    assert re.findall(r"data-copy='([\w-]{43})'", page) == ids[::-1]
    page = client.get("/explorer/bundle", {"number": "1"}).text
    assert f"0x{world.world.root_of(1).hex()}" in page
    assert ids[1] in page
    assert "<dt>Messages</dt><dd>9<small>1 of them late" in page
    assert "3 of 4" in page


def test_brokers_are_shown_with_heartbeats_and_what_they_were_caught_at(client: AsgiClient) -> None:
    page = client.get("/explorer/brokers").text
    heard, silent = (page.index(f"0x{address.hex()}") for address in (OTHER, SILENT))
    own = page[page.index("this one") :]
    assert f"#{BUNDLES - 1}" in own
    assert "data-name='Messages'><div>66<br>" in own
    assert "2,600" in page[heard:silent]
    assert "heard" in page[heard:silent]
    assert "withheld: 2" in page[silent:]
    assert "silent" in page[silent:]


PATHS = (
    "/explorer/",
    "/explorer/?q=%3Cscript%3Ealert(3)%3C/script%3E%E2%80%AE'%22",
    html.unescape(address("/explorer/stream", id=HOSTILE)),
    "/explorer/bundles",
    "/explorer/bundle?number=0",
    "/explorer/brokers",
    "/explorer/stream?id=%3Cscript%3Ealert(3)%3C/script%3E",
    "/explorer/message?id=%3Cscript%3E",
)


@pytest.mark.parametrize("path", [*PATHS, "message"], ids=range(len(PATHS) + 1))
def test_nothing_from_outside_becomes_markup_or_turns_the_text(
    client: AsgiClient, world: ExplorerWorld, path: str
) -> None:
    answer = client.get(address_of(world.hostile) if path == "message" else path)
    page = answer.text
    assert "<script>alert" not in page
    assert "<b>broker" not in page
    assert "<b>&" not in page
    assert not re.search(r"[\u202a-\u202e\u2066-\u2069\x1b]", page)
    programs = re.findall(r"<script( [^>]*)?>", page)
    assert all("type=" in words for words in programs)
    # nothing is loaded from elsewhere, and nothing leads there
    targets = re.findall(r"(?:src|href|action)=['\"]?([^'\" >]+)", page)
    assert targets
    assert not [target for target in targets if "://" in target or target.startswith("//")]
    assert " style=" not in page
    assert not re.search(r" on\w+=", page)


def test_browsers_may_run_our_programs_and_nothing_else(client: AsgiClient, world: ExplorerWorld) -> None:
    answer = client.get(address_of(world.certified[0]))
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    (imports,) = re.findall(r"<script type=importmap>(.*?)</script>", answer.text)
    digest = base64.b64encode(hashlib.sha256(imports.encode()).digest()).decode()
    assert policy == {
        "default-src": "'none'",
        "script-src": f"'self' 'sha256-{digest}'",
        "style-src": "'self'",
        "img-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/explorer/stream", 400, "id: not 1 to 256 bytes"),
        ("/explorer/stream?id=nowhere", 404, "stream: not registered"),
        (f"/explorer/stream?id={STREAM}&partition=2", 404, "partition: the stream has 2"),
        (f"/explorer/stream?id={STREAM}&partition=x", 400, "partition: not a number"),
        (f"/explorer/stream?id={STREAM}&span=9y", 400, "span: one of 10m"),
        (f"/explorer/stream?id={STREAM}&at=yesterday", 400, "at: not a time"),
        (f"/explorer/stream?id={STREAM}&from=1&after=zz", 400, "after: not a place"),
        (f"/explorer/message?id={STREAM}&timestamp=1&leaf=00", 400, "leaf: not 32 bytes"),
        (f"/explorer/message?id={STREAM}&timestamp=1&leaf={'00' * 32}", 404, "neither this broker nor a bundle"),
        ("/explorer/bundle?number=99", 404, "bundle 99 is not verified here"),
        ("/explorer/bundle", 400, "number: required"),
    ],
)
def test_what_is_not_there_has_a_page_that_says_so(client: AsgiClient, path: str, status: int, said: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert said in html.unescape(answer.text)


def test_huge_values_are_cut(tmp_path: Path) -> None:
    world = ExplorerWorld(tmp_path)
    huge = a_reading(59_000, 1, content=b'{"x":"' + b"y" * 500_000 + b'"}', msg_chain_id="z" * 256)
    binary = a_reading(
        *(59_500, 2),
        content=b"\xff\xfe" * 100_000,
        content_type=ContentType.BINARY,
        signature_type=SignatureType.ECDSA_SECP256K1_EVM,
    )
    world.broker.hold([huge, binary])
    client = AsgiClient(world.app)
    page = client.get("/explorer/stream", {"id": STREAM}).text
    assert len(page) < 100_000
    for record in (huge, binary):
        page = client.get(address_of(record)).text
        shown = page[: page.index("id=evidence")]
        assert len(shown) < 60_000
    world.close()


def test_the_root_leads_to_the_explorer(client: AsgiClient) -> None:
    for path in ("/", "/explorer"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (302, "explorer/")
