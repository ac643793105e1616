"""The checks that browsers run say of every message, path and proof what the protocol's own code says."""

from __future__ import annotations

import json
import shutil
import subprocess
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace as with_fields

import validator.broker.explorer
from tests import paths
from tests.proving import a_bundle, a_part, altered
from validator.broker.explorer.assets import CURVES, HASHES
from validator.protocol.codec.message import decode_message, encode_message, leaf_of
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.codec.stored_message import StoredMessage, encode_stored
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import hash_body
from validator.protocol.merkle import compute_root_above, inclusion_proof
from validator.protocol.model import Address, Message, MessageType, Reason, Root, SignatureType
from validator.protocol.proof import MessageProof, build_message
from validator.protocol.proof import verify_message as verify_place
from validator.setup.binaries import find_node

WEB = Path(validator.broker.explorer.__file__).parent / "web"
VECTORS = json.loads((paths.VECTORS / "canonical.json").read_text())
PART = a_part(1)
PROGRAM = """
import { readFileSync } from "node:fs";
import * as checks from "./checks.js";
const said = (body) => { try { return body(); } catch (error) { return `no: ${error.message}`; } };
const asked = JSON.parse(readFileSync(0, "utf8"));
const bytes = checks.fromBase64url;
const signature = (m) => { const found = checks.checkSignature(m); return found.open ? "open" : "valid"; };
console.log(JSON.stringify({
  messages: asked.messages.map((text) => said(() => {
    const m = checks.readMessage(bytes(text));
    return { verdict: said(() => signature(m)), leaf: checks.hex(checks.messageLeaf(m, bytes(text))) };
  })),
  paths: asked.paths.map(([hash, index, size, path]) => {
    const root = checks.rootAbove(bytes(hash), BigInt(index), BigInt(size), bytes(path));
    return root === null ? null : checks.hex(root);
  }),
  proofs: asked.proofs.map((text) => said(() => {
    const stored = checks.readStored(bytes(text));
    const m = checks.readMessage(stored.canonical);
    const leaf = checks.messageLeaf(m, stored.canonical);
    return checks.hex(checks.bundleRoot(stored.bundle, checks.windowLeaf(stored.window,
      checks.entryLeaf(m, stored.entry, leaf)))) === checks.hex(stored.root);
  })),
}));
"""


def text(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checks and their libraries, laid out as Node wants them."""
    folder = tmp_path_factory.mktemp("checks")
    for package, names in (("curves", CURVES), ("hashes", HASHES)):
        home = folder / "node_modules" / "@noble" / package
        shutil.copytree(WEB / f"noble-{package}", home)
        exports = {f"./{name}": f"./{name}" for name in names} | {"./utils": "./utils.js", "./crypto": "./crypto.js"}
        (home / "package.json").write_text(json.dumps({"type": "module", "exports": exports}))
    (folder / "package.json").write_text('{"type": "module"}')
    for name in ("checks.js", "cbor.js"):
        shutil.copy(WEB / name, folder)
    (folder / "ask.js").write_text(PROGRAM)
    return folder / "ask.js"


def ask(program: Path, **asked: Any) -> dict[str, list[Any]]:
    question = json.dumps({"messages": [], "paths": [], "proofs": [], **asked})
    done = subprocess.run([find_node(), program], input=question, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return found


def changed(message: Message, random: Random) -> Iterator[Message]:
    """The message with something else in it, where that still has canonical bytes."""
    at = random.randrange(max(1, len(message.signature)))
    flipped = message.signature[:at] + bytes([message.signature[at] ^ 1]) + message.signature[at + 1 :]
    yield with_fields(message, signature=flipped)
    yield with_fields(message, content=message.content + b" ")
    yield with_fields(message, timestamp_ms=message.timestamp_ms + 1)
    yield with_fields(message, publisher_id=message.publisher_id[:-1] + b"\x00")
    yield with_fields(message, signature=b"")
    yield with_fields(message, signature=message.signature[:-1])
    yield with_fields(message, stream_id=message.stream_id + "\ufeff")


def what_we_say(message: Message) -> str:
    """As the browser says it: what it leaves open is no verdict of ours."""
    kind = message.signature_type
    if not message.signature:
        return "no"
    if message.message_type is not MessageType.MESSAGE and kind not in _READ:
        return "open"
    if kind is SignatureType.ML_DSA_87:
        return "open"
    said = verify_message(message)
    return "valid" if said is VALID else "open" if said is Reason.ERC1271_UNKNOWN else "no"


_READ = (SignatureType.ECDSA_SECP256K1_LEGACY, SignatureType.ARRAY_ETH, SignatureType.ARRAY_ETH_LEGACY)


def test_of_every_kind_of_message_browsers_say_what_we_say(program: Path) -> None:
    random, tried = Random(1), []
    for vector in VECTORS:
        message = decode_message(bytes.fromhex(vector["canonical"]))
        for each in (message, *changed(message, random)):
            try:
                tried.append((each, encode_message(each)))
            except MalformedInput:
                continue
    answers = ask(program, messages=[text(canonical) for _, canonical in tried])["messages"]
    for (message, canonical), answer in zip(tried, answers, strict=True):
        assert answer["leaf"] == leaf_of(message, canonical).hex()
        assert answer["verdict"].partition(":")[0] == what_we_say(message), (message, answer)
    said = [answer["verdict"].partition(":")[0] for answer in answers]
    assert min(said.count(word) for word in ("valid", "open", "no")) >= 5


def test_bytes_that_are_not_canonical_are_no_message(program: Path) -> None:
    good = bytes.fromhex(VECTORS[0]["canonical"])
    bad = [
        good + b"\x00",
        good[:-1],
        b"",
        b"\xff",
        b"\x9f" + good[1:],
        good.replace(b"message/1", b"message/2"),
        b"\x81" * 99,
    ]
    answers = ask(program, messages=[text(data) for data in bad])["messages"]
    assert [answer[:3] for answer in answers] == ["no:"] * len(bad)


def test_paths_lead_where_ours_lead(program: Path) -> None:
    random, asked = Random(2), []
    for size in (*range(1, 18), 100, 255, 256, 257):
        leaves = [hash_body(b"%d" % n) for n in range(size)]
        for index in {0, size - 1, random.randrange(size)}:
            path = inclusion_proof(leaves, index)
            for place, count, way in (
                (index, size, path),
                (index, size + 1, path),
                (index ^ 1, size, path),
                (index, size, path[:-1]),
                (index, size, (*path, leaves[0])),
                (size, size, path),
                (index, (1 << 64) - 1, path),
            ):
                asked.append((leaves[index], place, count, way))
    answers = ask(program, paths=[(text(leaf), str(at), str(of), text(b"".join(p))) for leaf, at, of, p in asked])[
        "paths"
    ]
    ours = [compute_root_above(*each) for each in asked]
    assert answers == [None if root is None else root.hex() for root in ours]
    assert None in answers


def test_of_altered_proofs_browsers_take_those_that_we_take(program: Path) -> None:
    proven = a_bundle((2, 5, 3))
    tried: list[tuple[bytes, MessageProof, Root]] = []
    for index in range(5):
        proof = build_message(proven.outcome, PART, proven.leaves(PART), index, proven.bundle)
        canonical = proven.records[PART][index].canonical
        tried.append((canonical, proof, proven.root))
        tried += [(canonical, other, proven.root) for other in altered(proof) if other.bundle is not None]
        tried.append((canonical, proof, Root(bytes(32))))
    asked = [StoredMessage(1, Address(bytes(20)), 0, root, canonical, proof) for canonical, proof, root in tried]
    answers = ask(program, proofs=[text(encode_stored(stored)) for stored in asked])["proofs"]
    for stored, answer in zip(asked, answers, strict=True):
        try:
            verify_place(stored.proof, stored.canonical, stored.root)
        except MalformedInput:
            assert answer is not True, stored
        else:
            assert answer is True, (stored, answer)
    assert answers.count(True) >= 5
