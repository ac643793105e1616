"""The explorer in a browser: it checks messages itself, says which step of a lie fails, and fits a phone.

One page of frames, each as wide as a phone, shows everything at once, so that one start of the browser sees it all.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.broker_parts import serving
from tests.browser import BROWSER, PICTURES, run_browser
from tests.builders import a_key
from tests.bundle_builder import MEMBERS, certify
from tests.certified_world import CONFIG
from tests.explorer_world import HOSTILE, STREAM, ExplorerWorld
from tests.explorer_world import address_of as path_of
from validator.broker.certified import OpenedBundle
from validator.broker.explorer.pieces import address
from validator.broker.explorer.reading import Parts
from validator.broker.explorer.routes import Explorer
from validator.net.chain.abi import interface
from validator.protocol.codec.config import config_digest
from validator.protocol.codec.message import decode_message, encode_message
from validator.protocol.codec.signatures import sign_message
from validator.protocol.codec.stored_message import StoredMessage
from validator.protocol.model import Certified, Digest, StreamPart

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
PHONE = 360
Stored = Callable[[StoredMessage], StoredMessage]
Opened = Callable[[OpenedBundle], OpenedBundle]


@dataclass
class LyingHistory:
    """A broker's history that gives other proofs than it has."""

    parts: Parts
    lie: Stored

    def newest(self) -> int | None:
        assert self.parts.history is not None
        return self.parts.history.newest()

    def prove_message(self, part: StreamPart, timestamp_ms: int, leaf: Digest, as_of: int) -> StoredMessage | None:
        assert self.parts.history is not None
        found = self.parts.history.prove_message(part, timestamp_ms, leaf, as_of)
        return None if found is None else self.lie(found)


@dataclass
class LyingBundles:
    """The same of its bundles."""

    parts: Parts
    lie: Opened

    def newest(self) -> Any:
        assert self.parts.bundles is not None
        return self.parts.bundles.newest()

    def describe(self, number: int) -> OpenedBundle | None:
        assert self.parts.bundles is not None
        found = self.parts.bundles.describe(number)
        return None if found is None else self.lie(found)


def with_history(parts: Parts, lie: Stored) -> Parts:
    history: Any = LyingHistory(parts, lie)
    return replace(parts, history=history)


def with_bundles(parts: Parts, lie: Opened) -> Parts:
    bundles: Any = LyingBundles(parts, lie)
    return replace(parts, bundles=bundles)


def with_other_content(stored: StoredMessage) -> StoredMessage:
    message = decode_message(stored.canonical)
    other = message.content.replace(b'"C"', b'"F"')
    assert other != message.content
    return replace(stored, canonical=encode_message(_altered(message, content=other)))


def with_another_publisher(stored: StoredMessage) -> StoredMessage:
    """Signed well, by somebody else: only the path knows that it is not what was stored."""
    message = _altered(decode_message(stored.canonical), publisher_id=a_key(9).address)
    return replace(stored, canonical=encode_message(sign_message(a_key(9), message)))


def _altered(message: Any, **fields: Any) -> Any:
    return type(message)(**{name: getattr(message, name) for name in message.__struct_fields__} | fields)


def with_another_place(stored: StoredMessage) -> StoredMessage:
    """The path fits, and leads elsewhere."""
    step = stored.proof.entry
    return replace(stored, proof=replace(stored.proof, entry=replace(step, path=step.path[::-1])))


def with_another_bundle_path(stored: StoredMessage) -> StoredMessage:
    step = stored.proof.bundle
    assert step is not None
    return replace(stored, proof=replace(stored.proof, bundle=replace(step, path=step.path[::-1])))


def with_too_few_votes(opened: OpenedBundle) -> OpenedBundle:
    return _certified_anew(opened, lambda c: certify(c.outcome, config_digest(CONFIG), MEMBERS[:2]))


def with_a_strangers_vote(opened: OpenedBundle) -> OpenedBundle:
    signers = sorted((*MEMBERS[:2], a_key(9)), key=lambda key: key.address)
    return _certified_anew(opened, lambda c: certify(c.outcome, config_digest(CONFIG), signers))


def _certified_anew(opened: OpenedBundle, make: Callable[[Certified], Certified]) -> OpenedBundle:
    manifest = opened.manifest
    return replace(opened, manifest=replace(manifest, windows=tuple(map(make, manifest.windows))))


def a_node(root: Callable[[], bytes]) -> ASGIApp:
    """An EVM node that knows ReportManager: the root of every bundle is the one given."""
    manager = interface("ReportManager")
    words: dict[str, Callable[[], bytes]] = {
        "reportOf": lambda: root() + bytes(128),
        "configDigest": lambda: config_digest(CONFIG),
        "committee": lambda: b"".join(
            [(32).to_bytes(32, "big"), len(MEMBERS).to_bytes(32, "big"), *(bytes(12) + m.address for m in MEMBERS)]
        ),
    }
    selectors = {manager.function(name).encode((0,) * (name == "reportOf"))[:4]: name for name in words}

    async def answer(request: Request) -> Response:
        asked = await request.json()
        name = selectors[bytes.fromhex(asked["params"][0]["data"][2:10])]
        return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "result": "0x" + words[name]().hex()})

    middleware = [Middleware(CORSMiddleware, allow_origins=["*"], allow_headers=["*"], allow_methods=["POST"])]
    return Starlette(routes=[Route("/", answer, methods=["POST"])], middleware=middleware)


class Framed:
    """The pages as they are, but that a page of this test may show them in frames."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def framed(message: Message) -> None:
            nobody, we = b"frame-ancestors 'none'", b"frame-ancestors 'self'"
            headers = [(name, value.replace(nobody, we)) for name, value in message.get("headers", ())]
            await send({**message, "headers": headers} if "headers" in message else message)

        await self._app(scope, receive, framed)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExplorerWorld]:
    world = ExplorerWorld(tmp_path_factory.mktemp("explorer"))
    yield world
    world.close()


def pages_of(world: ExplorerWorld) -> dict[str, str]:
    """Name of each frame, and its path."""
    stored = path_of(world.certified[3]).removeprefix("/")
    hostile = path_of(world.hostile).removeprefix("/")
    lies = ("content", "publisher", "place", "bundle", "votes", "stranger", "asked", "refused")
    return {
        "streams": "honest/explorer/",
        "stream": "honest" + html.unescape(address("/explorer/stream", id=STREAM)),
        "strange": "honest" + html.unescape(address("/explorer/stream", id=HOSTILE)),
        "bundles": "honest/explorer/bundles",
        "a bundle": "honest/explorer/bundle?number=1",
        "brokers": "honest/explorer/brokers",
        "nothing": "honest/explorer/bundle?number=77",
        "stored": f"honest/{stored}",
        "late": f"honest{path_of(world.late)}",
        "tail": f"honest{path_of(world.tail[-1])}",
        "hostile": f"honest/{hostile}",
        **{lie: f"{lie}/{stored}" for lie in lies},
    }


FRAMES = """<!doctype html><meta charset=utf-8><body>%s<script>
const frames = Array.from(document.querySelectorAll("iframe"));
function look(frame) {
  const page = frame.contentDocument;
  const step = page.querySelector("[data-state=bad][data-step]");
  return {
    name: frame.name, checked: page.body.dataset.checked ?? "", program: page.documentElement.dataset.program ?? "",
    wide: page.documentElement.scrollWidth - %d, step: step ? step.dataset.step : "",
    text: page.body.innerText, scripts: page.querySelectorAll("script:not([type])").length,
    steps: Object.fromEntries([...page.querySelectorAll("[data-step]")].map((n) => [n.dataset.step, n.dataset.state])),
  };
}
const timer = setInterval(() => {
  const seen = frames.map(look);
  if (seen.some((s) => !s.program || (s.steps.signature && !["good", "bad", "open"].includes(s.checked)))) return;
  clearInterval(timer);
  const result = document.createElement("pre");
  result.id = "seen";
  result.textContent = JSON.stringify(seen);
  document.body.replaceChildren(result);
}, 100);
</script>"""


@pytest.fixture(scope="module")
def url(world: ExplorerWorld) -> Iterator[str]:
    parts = world.parts
    root = world.world.root_of(0)
    with ExitStack() as stack:
        honest_node = stack.enter_context(serving(a_node(lambda: root)))
        other_node = stack.enter_context(serving(a_node(lambda: bytes(32))))
        explorers = {
            "honest": Explorer(parts),
            "content": Explorer(with_history(parts, with_other_content)),
            "publisher": Explorer(with_history(parts, with_another_publisher)),
            "place": Explorer(with_history(parts, with_another_place)),
            "bundle": Explorer(with_history(parts, with_another_bundle_path)),
            "votes": Explorer(with_bundles(parts, with_too_few_votes)),
            "stranger": Explorer(with_bundles(parts, with_a_strangers_vote)),
            "asked": Explorer(parts, honest_node + "/"),
            "refused": Explorer(parts, other_node + "/"),
        }
        for explorer in explorers.values():
            stack.callback(explorer.close)
        frames = "".join(
            f"<iframe name='{name}' width={PHONE} height=700 src='{html.escape(path)}'></iframe>"
            for name, path in pages_of(world).items()
        )

        async def show_frames(_request: Request) -> Response:
            return HTMLResponse(FRAMES % (frames, PHONE))

        mounts = [Mount(f"/{name}", routes=explorer.routes()) for name, explorer in explorers.items()]
        app = Framed(Starlette(routes=[Route("/", show_frames), *mounts]))
        limits = {"connections_per_address": 100}
        yield stack.enter_context(serving(app, **limits)) + "/"


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory, url: str) -> Callable[..., str]:
    folder = tmp_path_factory.mktemp("browser")

    def run(path: str, *words: str) -> str:
        return run_browser(folder, url + path, *words)

    return run


@pytest.fixture(scope="module")
def seen(browse: Callable[..., str]) -> dict[str, dict[str, Any]]:
    """What the browser has found in each frame."""
    page = browse("", "--virtual-time-budget=60000", "--dump-dom")
    (text,) = re.findall(r'<pre id="seen">(.*?)</pre>', page, re.DOTALL)
    return {each["name"]: each for each in json.loads(html.unescape(text))}


def test_green_is_what_the_browser_has_checked_to_the_end(seen: dict[str, dict[str, Any]]) -> None:
    for name in ("stored", "late", "hostile"):
        page = seen[name]
        assert page["checked"] == "good", page["text"]
        assert {state for step, state in page["steps"].items() if step != "contract"} == {"good"}
        assert page["steps"]["contract"] == "word"
        assert "On this broker's word: that this is the network's committee" in page["text"]


def test_where_a_node_may_be_asked_the_contract_is(seen: dict[str, dict[str, Any]]) -> None:
    page = seen["asked"]
    assert page["checked"] == "good", page["text"]
    assert set(page["steps"].values()) == {"good"}
    assert "word" not in page["text"].split("Content")[0]


def test_a_message_that_no_certificate_covers_is_not_green(seen: dict[str, dict[str, Any]]) -> None:
    page = seen["tail"]
    assert (page["checked"], page["steps"]["signature"], page["steps"]["entry"]) == ("open", "good", "none")
    assert "Signed, not certified yet" in page["text"]


@pytest.mark.parametrize(
    ("lie", "step", "reason"),
    [
        ("content", "signature", "who is not the publisher"),
        ("publisher", "message", "not the one that was asked for"),
        ("place", "certificate", "decides another outcome"),
        ("bundle", "bundle", "leads to 0x"),
        ("votes", "certificate", "2 signers where 3 are needed"),
        ("stranger", "certificate", "is not in the committee"),
        ("refused", "contract", "as the root of bundle 0"),
    ],
)
def test_red_names_the_first_step_that_fails(seen: dict[str, dict[str, Any]], lie: str, step: str, reason: str) -> None:
    page = seen[lie]
    assert (page["checked"], page["step"]) == ("bad", step), page["text"]
    assert f"Does not hold: {step}" in page["text"]
    assert reason in page["text"]


def test_nothing_is_wider_than_a_phone(seen: dict[str, dict[str, Any]], world: ExplorerWorld) -> None:
    assert seen.keys() == pages_of(world).keys()
    assert {name: page["wide"] for name, page in seen.items() if page["wide"] > 0} == {}


def test_what_is_hostile_is_text_to_the_browser_too(seen: dict[str, dict[str, Any]]) -> None:
    page = seen["hostile"]
    assert "</script><script>alert(2)</script>" in page["text"]
    assert "\\u202eevil" in page["text"]
    assert "\u202e" not in page["text"]
    assert {name: p["scripts"] for name, p in seen.items() if p["scripts"]} == {}


def test_it_is_shown_in_both_themes(browse: Callable[..., str], world: ExplorerWorld, tmp_path: Path) -> None:
    pictures = []
    for name, scheme in (("light", "1"), ("dark", "0")):
        picture = Path(os.environ.get(PICTURES, str(tmp_path))) / f"explorer-{name}.png"
        words = (f"--screenshot={picture}", f"--blink-settings=preferredColorScheme={scheme}")
        browse(pages_of(world)["streams"], "--window-size=1200,1200", "--virtual-time-budget=1500", *words)
        pictures.append(picture.read_bytes())
    assert pictures[0] != pictures[1]
