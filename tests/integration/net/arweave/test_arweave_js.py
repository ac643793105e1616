"""arweave-js, the ecosystem's own library: it reads and verifies what we upload, and we what it uploads.

Needs Node; the library comes by npm. Both sides meet at the development gateway, which so is tried by a stranger, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_process import GatewayProcess
from tests.integration.net.arweave.conftest import VECTORS, Bundle
from validator.net.arweave.storage import ArweaveStorage
from validator.protocol.codec.arweave_text import decode_storage_id, encode_base64url, encode_storage_id
from validator.setup.binaries import find_node, find_npm

PACKAGE = "arweave@1.15.7"
PROGRAM = Path(__file__).with_name("arweave_js.mjs")
SIZES = [1, 262_143, 262_144, 262_145, 524_288, 600_000]
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Run the library: words in, its answer out."""
    folder = tmp_path_factory.mktemp("arweave-js")
    (folder / "package.json").write_text('{"private": true}')
    npm, node = find_npm(), find_node()
    environment = {**os.environ, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}"}
    words = [*npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
    subprocess.run(words, cwd=folder, check=True, capture_output=True, timeout=100, env=environment)

    def run(*words: str) -> dict[str, Any]:
        done = subprocess.run(
            [node, str(PROGRAM), *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return dict(json.loads(done.stdout))

    return run


@pytest.mark.parametrize("size", SIZES)
def test_it_reads_and_verifies_what_we_upload(
    size: int, ask: Ask, funded: GatewayProcess, storage: ArweaveStorage, build_bundle: Callable[[int], Bundle]
) -> None:
    bundle = build_bundle(size)
    prepared = storage.prepare(bundle.path, bundle.tags)
    storage.post(prepared)
    storage.seed(prepared, bundle.path)
    funded.mine(2)
    read = ask("read", funded.url, encode_storage_id(prepared.storage_id))
    assert read["verified"] is True
    assert (read["size"], read["sha256"]) == (size, hashlib.sha256(bundle.content).hexdigest())
    assert read["same"] is True, "chunk by chunk and at once it is the same"
    assert (read["owner"], read["tags"]) == (encode_base64url(prepared.owner), [list(tag) for tag in bundle.tags])
    assert read["status"]["status"] == 200
    assert read["status"]["confirmed"]["number_of_confirmations"] == 2


@pytest.mark.parametrize("size", SIZES)
def test_we_read_and_verify_what_it_uploads(
    size: int, ask: Ask, funded: GatewayProcess, storage: ArweaveStorage, tmp_path: Path
) -> None:
    key, data = tmp_path / "wallet.json", tmp_path / "data"
    key.write_text(json.dumps(json.loads(VECTORS.read_text())["keys"]["rsa"]))
    content = os.urandom(size)
    data.write_bytes(content)
    sent = ask("send", funded.url, str(key), str(data))
    funded.mine()
    storage_id = decode_storage_id(sent["id"])
    stored = storage.fetch_transaction(storage_id)
    assert (stored.data_size, stored.tags) == (size, (("App-Name", "arweave-js"),))
    assert storage.fetch_data(storage_id, tmp_path / "back", 1 << 20) == size
    assert (tmp_path / "back").read_bytes() == content
