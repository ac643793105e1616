"""What Streamr's own SDK reads of the same messages, by ``resend``, from the same stand-in of a broker.

The SDK finds the broker by registries, and publishers' permissions, on a chain: both are set up for it, and it asks for
each once. It joins no network, since a resend needs none.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.broker_parts import make_keys
from tests.builders import a_key
from tests.paths import ROOT
from tests.servers import run_anvil
from tests.streamr_network import a_peer, run_indexer
from validator.devnet.contracts import DevChain, StreamSetup
from validator.devnet.storage import deploy_registries, register_storage_nodes
from validator.net.chain.registries import Registry
from validator.protocol.codec.frames import write_frame
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.model import Address, Record
from validator.setup.binaries import find_streamr

OWNER, BROKER = a_key(201), a_key(202)
STREAM = f"0x{OWNER.address.hex()}/measured"
LIMIT_S = 600.0


def make_raw_answer(records: Sequence[Record]) -> bytes:
    """Frames of the SDK's own wire form."""
    return b"".join(write_frame(write_protobuf(record.message)) for record in records)


def measure_resend(broker_url: str, records: Sequence[Record], rounds: int) -> float:
    """Seconds of CPU that the SDK takes for all of these, which the broker gives for whatever is asked; the best round.

    Raises:
        SetupError: Node or Streamr's packages are not here.
    """
    node, packages = find_streamr()
    with ExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="logstore-")))
        rpc_url = started.enter_context(run_anvil())
        chain = DevChain(rpc_url, OWNER)
        started.callback(chain.close)
        found = _set_up(chain, broker_url)
        indexer_url = started.enter_context(run_indexer(folder, rpc_url, found))
        peer = a_peer()
        config = {
            "packages": str(packages),
            "key": a_key(203).secret_hex(),
            "chainId": 31337,
            "rpcUrl": rpc_url,
            "theGraphUrl": indexer_url,
            "streamRegistry": f"0x{found[Registry.STREAMS].hex()}",
            "nodeRegistry": f"0x{found[Registry.NODES].hex()}",
            "storageRegistry": f"0x{found[Registry.STORAGE].hex()}",
            "entryPoints": [],
            "peers": [{"id": peer.id, "host": peer.host, "port": peer.port}],
            "stream": STREAM,
            "fromMs": records[0].message.timestamp_ms,
            "rounds": rounds,
        }
        (folder / "resend.json").write_text(json.dumps(config))
        return _read(node, folder, len(records))


def _set_up(chain: DevChain, broker_url: str) -> Mapping[Registry, Address]:
    """A stream that all publishers may publish to, stored by the broker; where the registries are."""
    chain.deploy()
    registries = deploy_registries(chain, OWNER)
    publishers = tuple(bytes(key.address) for key in make_keys())
    chain.create_streams([StreamSetup(STREAM, 0, publishers=publishers)])
    chain.fund([BROKER.address])
    register_storage_nodes(chain, OWNER, [(BROKER, broker_url)], [STREAM])
    chain.start_mining(1)
    return registries


def _read(node: str, folder: Path, count: int) -> float:
    options = f"--require {ROOT / 'tests' / 'loopback_only.cjs'}"
    done = subprocess.run(
        [node, str(ROOT / "benchmarks" / "node" / "resend.mjs"), str(folder / "resend.json")],
        env={**os.environ, "NODE_OPTIONS": options, "LOOPBACK_LOG": str(folder / "asked")},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not said or any(round_["count"] != count for round_ in said):
        raise SystemExit(f"the SDK has not read all messages: {(done.stdout + done.stderr)[-2_000:]}")
    return float(min(round_["cpuS"] for round_ in said))
