"""Streamr's own SDK in a run: a publisher as anybody writes one, and at the end a reader that verifies what it reads.

Both are short programs of the unmodified SDK (``sdk/``). The publisher creates its stream, stakes its balance, has it
stored by the first broker and publishes through the run's windows; what it has published is written down as the other
publishers' messages are, so the independent check holds it to the same. The reader asks that broker for the stream and
must get what reached it, though loss is injected behind the bridge, and may get what others brought it.
"""

from __future__ import annotations

import base64
import json
import math
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from validator.devnet.carriers import Carrier
from validator.devnet.children import Children
from validator.devnet.contracts import WEI, DevChain
from validator.devnet.folder import RunFolder
from validator.devnet.network import log_forms, parcel_of
from validator.devnet.places import start_role, write_config
from validator.devnet.plan import Options, broker_name, make_key
from validator.devnet.process import LineLog
from validator.devnet.roles import wait_for_port
from validator.devnet.storage import register_storage_nodes
from validator.net.chain.registries import Registry
from validator.protocol.codec.protobuf import read_protobuf
from validator.protocol.codec.received import PROTOBUF
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.model import Address, Message

FOLDER = Path(__file__).parent / "sdk"
NAME = "sdk"
PATH = "/sdk"
PARTITIONS = 2
PAUSE_MS = 200
STAKE = 1_000 * WEI
LAST = 10
CHECK_LIMIT_S = 90.0
READY_MS = 12_000
"""How much later the first window begins, so that the stream is stored before many processes start at once."""
Identity = tuple[int, int, str, str]


@dataclass(frozen=True, slots=True)
class SdkSide:
    """What the SDK's programs are told of the run."""

    carrier: Carrier
    owner: SigningKey
    key: SigningKey
    broker: SigningKey
    common: Mapping[str, Any]

    @property
    def stream_id(self) -> str:
        return f"0x{self.key.address.hex()}{PATH}"


def prepare_sdk(
    chain: DevChain,
    options: Options,
    carrier: Carrier,
    owner: SigningKey,
    registries: Mapping[Registry, Address],
    broker_urls: Sequence[str],
    stream_ids: Sequence[str],
    rpc_url: str,
) -> SdkSide:
    """Brokers become storage nodes, the run's streams are assigned to them, and the SDK's account gets money."""
    nodes = [(make_key(options.seed, broker_name(i), "node"), url) for i, url in enumerate(broker_urls)]
    register_storage_nodes(chain, owner, nodes, stream_ids)
    key = make_key(options.seed, NAME, "publish")
    chain.fund([key.address])
    chain.transact(owner, "Token", "mintTokens", _hex(key.address), STAKE)
    contracts = chain.deployment.contracts
    common = {
        "packages": str(carrier.packages),
        "key": "0x" + key.secret_hex().removeprefix("0x"),
        "chainId": chain.chain_id,
        "rpcUrl": rpc_url,
        "streamRegistry": _hex(registries[Registry.STREAMS]),
        "nodeRegistry": _hex(registries[Registry.NODES]),
        "storageRegistry": _hex(registries[Registry.STORAGE]),
        "storeManager": _hex(contracts.store_manager),
        "token": _hex(contracts.token),
        "entryPoints": [_place(peer) for peer in carrier.entry_points],
        "peers": [_place(peer) for peer in carrier.spares],
        "partitions": PARTITIONS,
    }
    return SdkSide(carrier, owner, key, nodes[0][0], common)


def launch_sdk(children: Children, folder: RunFolder, options: Options, side: SdkSide, genesis_ms: int) -> str:
    """Start what stands for The Graph and the publisher, and wait for its stream to be stored; the indexer's URL."""
    indexer_url = _start_indexer(children, folder, side)
    _start_publisher(children, folder, options, side, indexer_url, genesis_ms)
    _wait_until_stored(children, folder)
    return indexer_url


def _start_indexer(children: Children, folder: RunFolder, side: SdkSide) -> str:
    """What stands for The Graph; its URL."""
    port_file = folder.path / "configs" / "indexer.port"
    config = {
        "port_file": port_file,
        "rpc_url": side.common["rpcUrl"],
        "stream_registry": side.common["streamRegistry"],
        "node_registry": side.common["nodeRegistry"],
        "storage_registry": side.common["storageRegistry"],
    }
    start_role(children, folder, "indexer", "indexer", config)
    return f"http://127.0.0.1:{wait_for_port(children, port_file, 'indexer')}"


def _start_publisher(
    children: Children, folder: RunFolder, options: Options, side: SdkSide, indexer_url: str, genesis_ms: int
) -> None:
    """It ends by itself, with the last message of the others at the latest."""
    end_ms = genesis_ms + options.traffic_ms
    config = {
        **side.common,
        "theGraphUrl": indexer_url,
        "path": PATH,
        "storageNode": _hex(side.broker.address),
        "stake": str(STAKE),
        "startMs": genesis_ms,
        "endMs": end_ms,
        "everyMs": PAUSE_MS,
        "count": (end_ms - genesis_ms) // PAUSE_MS,
    }
    path = write_config(folder, "sdk-publish", config)
    children.start("sdk-publish", _words(side, "publish.mjs", path), may_end=True)


def _wait_until_stored(children: Children, folder: RunFolder, limit_s: float = READY_MS / 1000) -> None:
    """Until the publisher's stream is stored, so that its node is there before many processes start at once; not longer
    than ``limit_s``. Raises ChildEnded."""
    log, end = folder.logs / "sdk-publish.log", time.monotonic() + limit_s
    while time.monotonic() < end:
        children.check()
        if any(_step(line).get("step") == "stored" for line in log.read_text(errors="replace").splitlines()):
            return
        time.sleep(0.1)


def read_published(folder: RunFolder) -> list[Message]:
    """What the SDK's publisher says it has published; written down for the independent check. Raises ValidatorError."""
    log = LineLog(folder.logs / NAME / "published.jsonl")
    messages = []
    for line in (folder.logs / "sdk-publish.log").read_text(errors="replace").splitlines():
        step = _step(line)
        if step.get("step") == "published":
            message = read_protobuf(base64.b64decode(step["data"]))
            told = {"time_ms": message.timestamp_ms, "kind": "message"}
            place = {"stream": message.stream_id, "partition": message.partition}
            log.write_all({**told, **place, **form} for form in log_forms(parcel_of(message)))
            messages.append(message)
    log.close()
    return messages


def check_with_sdk(
    folder: RunFolder, side: SdkSide, indexer_url: str, messages: Sequence[Message], environment: Mapping[str, str]
) -> dict[str, Any]:
    """Read the stream back; what came, and what is wrong with that, for the summary."""
    facts: dict[str, Any] = {"stream": side.stream_id, "published": len(messages), "resend": {}, "failures": []}
    facts["rss_mb"] = _most_memory(folder.logs / "sdk-publish.log")
    if not messages:
        return facts  # on a machine too slow for it the last window was over; the summary shows the 0
    held = _held_by(folder.logs / broker_name(0) / "deliveries.jsonl", messages)
    times = sorted(message.timestamp_ms for message in messages)
    config = {
        **side.common,
        "theGraphUrl": indexer_url,
        "stream": side.stream_id,
        "fromMs": times[0],
        "toMs": times[len(times) // 2],
        "last": LAST,
    }
    path, log = write_config(folder, "sdk-check", config), folder.logs / "sdk-check.log"
    with log.open("wb") as sink:
        done = subprocess.run(
            _words(side, "check.mjs", path),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            cwd=folder.path,
            env=dict(environment),
            timeout=CHECK_LIMIT_S,
            check=False,
        )
    if done.returncode:
        facts["failures"].append(f"the SDK's reader ended with status {done.returncode}; see {log}")
    for line in log.read_text(errors="replace").splitlines():
        _judge(facts, _step(line), messages, held, config)
    if len(facts["resend"]) != 3:
        facts["failures"].append("the SDK's reader has not answered everything")
    facts["rss_mb"] = max(facts["rss_mb"], _most_memory(log))
    return facts


def _judge(
    facts: dict[str, Any],
    step: Mapping[str, Any],
    published: Sequence[Message],
    held: Sequence[Message],
    config: Mapping[str, Any],
) -> None:
    """One answer of the reader: in order, nothing but what was published, and all that had reached the broker itself;
    what it lacked, others may have brought it meanwhile."""
    kind = step.get("step")
    if kind not in ("last", "from", "range"):
        return
    until = config["toMs"] if kind == "range" else math.inf
    possible, certain = (
        sorted(_identity(m) for m in some if m.partition == step["partition"] and m.timestamp_ms <= until)
        for some in (published, held)
    )
    got = [tuple(one) for one in step["messages"]]
    facts["resend"][kind] = facts["resend"].get(kind, 0) + len(got)
    if kind == "last":
        certain = certain[-config["last"] :] if len(got) < config["last"] else []
    why = step["error"]
    if not why and not set(got) <= set(possible):
        why = "what nobody published"
    elif not why and got != sorted(set(got)):
        why = "out of order, or twice"
    elif not why and not set(certain) <= set(got):
        why = f"{len(set(certain) - set(got))} messages are missing that the broker holds"
    if why:
        facts["failures"].append(f"resend {kind} of partition {step['partition']}: {why}")


def _held_by(deliveries: Path, messages: Sequence[Message]) -> list[Message]:
    """Of these messages, those that a broker's log says it keeps, in the order of answers."""
    by_line = {form["line"]: m for m in messages for form in log_forms(parcel_of(m)) if form["form"] == PROTOBUF}
    held: dict[Identity, Message] = {}
    with deliveries.open("rb") as lines:
        for line in lines:
            entry = json.loads(line)
            message = by_line.get(entry["line"])
            if message is not None and "refused" not in entry:
                held[_identity(message)] = message
    return sorted(held.values(), key=_identity)


def _identity(message: Message) -> Identity:
    publisher = _hex(message.publisher_id)
    return (message.timestamp_ms, message.sequence_number, publisher, message.msg_chain_id)


def _most_memory(log: Path) -> int:
    return max((_step(line).get("rssMb", 0) for line in log.read_text(errors="replace").splitlines()), default=0)


def _step(line: str) -> dict[str, Any]:
    """A line of a program's output that is one of its steps, or nothing: the SDK logs there too."""
    try:
        step = json.loads(line)
    except ValueError:
        return {}
    return step if isinstance(step, dict) and "step" in step else {}


def _words(side: SdkSide, program: str, config: Path) -> list[str]:
    return [side.carrier.node, str(FOLDER / program), str(config)]


def _place(peer: Any) -> dict[str, Any]:
    return {"id": peer.id, "host": peer.host, "port": peer.port}


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
