"""Streamr's own SDK, unmodified, at our broker: creates a stream, has it stored, publishes, and reads it back."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.builders import a_key
from tests.native_sqlite import HOOK, MODULE, what_is_missing
from tests.paths import ROOT
from tests.streamr_network import StreamrNetwork, a_peer, run_indexer, run_streamr_network
from validator.devnet.contracts import WEI, DevChain, NodeSetup
from validator.devnet.storage import deploy_registries, register_storage_nodes
from validator.net.chain.registries import Registry
from validator.protocol.codec.protobuf import read_protobuf
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.model import Address, EncryptionType, Message
from validator.protocol.parameters import Network, ParameterSet, format_network
from validator.setup.console import die_with_parent

OWNER, BROKER, STAKER, USER, FRIEND = a_key(1), a_key(2), a_key(3), a_key(4), a_key(5)
COUNT = 20
SECRETS = 6
PLACES = 6
PARTITIONS = 2
LIMIT_S = 90.0
SDK = ROOT / "validator" / "devnet" / "sdk"

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


@dataclass
class Stack:
    """Chain, registries, network, broker and indexer, as a client of Streamr sees them."""

    folder: Path
    url: str
    indexer_url: str
    rpc_url: str
    chain: DevChain
    registries: Mapping[Registry, Address]
    streamr: StreamrNetwork

    async def run(
        self, program: Path, environment: Mapping[str, str] = MappingProxyType({}), **more: Any
    ) -> list[dict[str, Any]]:
        """What one program of the SDK says, step by step."""
        said = await self.run_file(program, environment, **more)
        return [json.loads(line) for line in said.splitlines() if line.startswith("{")]

    async def run_file(self, program: Path, environment: Mapping[str, str] = MappingProxyType({}), **more: Any) -> str:
        """What a program prints that is given this network."""
        entry, peers = self.streamr.program.entry_points[0], [a_peer() for _ in range(PLACES)]
        contracts = self.chain.deployment.contracts
        config = {
            "packages": str(self.streamr.program.packages),
            "key": "0x" + USER.secret_hex().removeprefix("0x"),
            "chainId": 31337,
            "rpcUrl": self.rpc_url,
            "theGraphUrl": self.indexer_url,
            "streamRegistry": _hex(self.registries[Registry.STREAMS]),
            "nodeRegistry": _hex(self.registries[Registry.NODES]),
            "storageRegistry": _hex(self.registries[Registry.STORAGE]),
            "storeManager": _hex(contracts.store_manager),
            "token": _hex(contracts.token),
            "entryPoints": [{"id": entry.id, "host": entry.host, "port": entry.port}],
            "peers": [{"id": peer.id, "host": peer.host, "port": peer.port} for peer in peers],
            "partitions": PARTITIONS,
            **more,
        }
        path = self.folder / f"{program.name}.json"
        path.write_text(json.dumps(config))
        process = await asyncio.create_subprocess_exec(
            self.streamr.program.node,
            str(program),
            str(path),
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(LIMIT_S):
                out, err = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        assert process.returncode == 0, (out + err).decode()[-3000:]
        return out.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(anvil: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("sdk")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NODE_OPTIONS", f"--require {ROOT / 'tests' / 'loopback_only.cjs'}")
        patch.setenv("LOOPBACK_LOG", str(folder / "asked"))
        patch.setenv("XDG_DATA_HOME", str(folder / "home"))  # else the SDK keeps its keys in this user's home
        async for stack in _run(folder, anvil):
            yield stack


async def _run(folder: Path, anvil: str) -> AsyncIterator[Stack]:
    chain = DevChain(anvil, OWNER)
    async with run_streamr_network() as streamr:
        with contextlib.ExitStack() as started:
            started.callback(chain.close)
            yield await asyncio.to_thread(_start, folder, anvil, chain, streamr, started)


def _start(
    folder: Path, rpc_url: str, chain: DevChain, streamr: StreamrNetwork, started: contextlib.ExitStack
) -> Stack:
    deployment = chain.deploy()
    registries = deploy_registries(chain, OWNER)
    parameters = ParameterSet(first_epoch=0, epoch_windows=10)
    network = Network("test", 31337, deployment.block, deployment.parent_hash, deployment.contracts, 0, (parameters,))
    (folder / "network.toml").write_text(format_network(network))
    key_file = folder / "key"
    key_file.write_text(BROKER.secret_hex())
    key_file.chmod(0o600)
    log = started.enter_context((folder / "broker.log").open("wb"))
    environment = {
        "NETWORK_FILE": folder / "network.toml",
        "DATA_DIR": folder / "data",
        "RPC_URLS": rpc_url,
        "KEY_FILE": key_file,
        "HOST": "127.0.0.1",
        "PORT": "0",
        "OPERATOR_PORT": "0",
        "DISK_FLOOR": "1MiB",
        "BRIDGE_SOCKETS": streamr.sockets[0],
        "STORAGE_REGISTRY": _hex(registries[Registry.STORAGE]),
        "CHAIN_EVERY_S": "0.5",
        "BALANCE": "false",
    }
    own = {f"LOGSTORE_BROKER_{name}": str(value) for name, value in environment.items()}
    started.enter_context(_running([sys.executable, "-m", "validator.cli", "broker"], log, {**os.environ, **own}))
    url = f"http://127.0.0.1:{_wait_for_port(folder / 'broker.log')}"
    chain.register_nodes([NodeSetup(BROKER, STAKER, WEI, http_url=url)])
    register_storage_nodes(chain, OWNER, [(BROKER, url)], [])
    chain.fund([USER.address])
    chain.transact(OWNER, "Token", "mintTokens", _hex(USER.address), 100 * WEI)
    chain.start_mining(1)
    indexer = started.enter_context(run_indexer(folder, rpc_url, registries))
    return Stack(folder, url, indexer, rpc_url, chain, registries, streamr)


@contextlib.contextmanager
def _running(words: list[str], log: Any, environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=log, stderr=log, preexec_fn=die_with_parent)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def _wait_for_port(log: Path) -> int:
    for _ in range(600):
        for line in log.read_text().splitlines():
            if line.startswith("{") and (said := json.loads(line)).get("listener") == "public":
                port: int = said["port"]
                return port
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def published(stack: Stack) -> tuple[str, list[Message]]:
    """The stream that the SDK has made, and what it has published there."""
    now_ms = int(time.time() * 1000)
    steps = await stack.run(
        SDK / "publish.mjs",
        path="/measurements",
        storageNode=_hex(BROKER.address),
        stake=str(WEI),
        startMs=now_ms,
        endMs=now_ms + 90_000,
        count=COUNT,
        everyMs=20,
    )
    names = [step["step"] for step in steps]
    assert names == ["created", "staked", "stored", *["published"] * COUNT, "done"]
    messages = [read_protobuf(base64.b64decode(step["data"])) for step in steps if step["step"] == "published"]
    return steps[0]["stream"], messages


async def test_what_the_sdk_publishes_is_what_it_signed(published: tuple[str, list[Message]]) -> None:
    stream, messages = published
    assert stream == f"{_hex(USER.address)}/measurements"
    assert [verify_message(message) for message in messages] == [VALID] * COUNT
    assert {message.stream_part for message in messages} == {(stream, number) for number in range(PARTITIONS)}


async def test_resend_gives_back_every_message_and_the_sdk_verifies_each(
    stack: Stack, published: tuple[str, list[Message]]
) -> None:
    stream, messages = published
    await _wait_until_stored(stack, stream, messages)
    times = [message.timestamp_ms for message in messages]
    middle = times[COUNT // 2]
    answers = await stack.run(SDK / "check.mjs", stream=stream, fromMs=min(times), toMs=middle, last=COUNT // 4)
    assert [(answer["partition"], answer["step"]) for answer in answers] == [
        (number, kind) for number in range(PARTITIONS) for kind in ("last", "from", "range")
    ]
    for answer in answers:
        assert answer["error"] == ""
        own = [_identity(m) for m in messages if m.partition == answer["partition"]]
        wanted = {
            "last": own[-(COUNT // 4) :],
            "from": own,
            "range": [one for one in own if one[0] <= middle],
        }[answer["step"]]
        assert answer["messages"] == wanted


@pytest.mark.parametrize("keys", ["webassembly", "native"])
async def test_a_private_stream_is_stored_as_it_was_encrypted_and_read_by_whom_it_is_for(
    stack: Stack, keys: str
) -> None:
    """Where the SDK keeps group keys: in our SQLite of WebAssembly, or in the module that it names itself."""
    environment = {}
    if keys == "native":
        missing = what_is_missing()
        if missing is not None:
            pytest.skip(missing)
        environment = {"NODE_OPTIONS": f"{os.environ['NODE_OPTIONS']} --require {HOOK}", "SQLITE3_MODULE": str(MODULE)}
    environment["XDG_DATA_HOME"] = str(stack.folder / keys)
    steps = await stack.run(
        Path(__file__).with_name("private_stream.mjs"),
        environment,
        path=f"/secrets-{keys}",
        storageNode=_hex(BROKER.address),
        stake=str(WEI),
        count=SECRETS,
        friendKey="0x" + FRIEND.secret_hex().removeprefix("0x"),
    )
    stream = steps[0]["stream"]
    assert Path(steps[0]["keysIn"]).is_relative_to(MODULE.resolve()) == (keys == "native")
    messages = [read_protobuf(base64.b64decode(step["data"])) for step in steps if step["step"] == "published"]
    assert [verify_message(message) for message in messages] == [VALID] * SECRETS
    assert {message.encryption_type for message in messages} == {EncryptionType.AES}
    read = {step["step"]: step["contents"] for step in steps if "contents" in step}
    sent = [{"number": number, "secret": "grüße"} for number in range(SECRETS)]
    assert read == {"last": sent[-2:], "from": sent[2:], "range": sent[1:4]}
    assert {path.name for path in (stack.folder / keys).rglob("*.db")} == {"GroupKeys.db"}
    held = await _ask_broker(stack, stream, 0)
    assert [one["encryptionType"] for one in held] == [EncryptionType.AES] * SECRETS
    assert [bytes.fromhex(one["content"]) for one in held] == [message.content for message in messages]
    assert not any(b"secret" in message.content for message in messages)


def recipe_blocks(language: str) -> list[str]:
    recipe = (ROOT / "docs" / "recipes" / "streamr-sdk-both-ways.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", recipe, re.MULTILINE | re.DOTALL)


async def test_what_the_sdk_publishes_we_read_and_what_we_publish_the_sdk_reads(
    stack: Stack, published: tuple[str, list[Message]]
) -> None:
    """The blocks of the recipe, as written but for which network it is."""
    stream, _ = published
    query, publish = recipe_blocks("sh")
    await _run_shell(stack, stream, publish)
    read = await stack.run_file(_write_recipe(stack.folder), stream=stream)
    assert f'{_hex(USER.address)} {{"by":"logstore","temperature":19}}' in read.splitlines()
    async with asyncio.timeout(60):
        while '"the SDK"' not in (answer := (await _run_shell(stack, stream, query)).replace("\\", "")):
            await asyncio.sleep(0.2)  # it may still be under way to the broker
    assert '"by": "logstore"' in answer


def _write_recipe(folder: Path) -> Path:
    """Its two programs as one, whose client is set up for this network."""
    begin, end = recipe_blocks("js")
    begin, changed = re.subn(r"const client = new StreamrClient\(.*\)\n", "const client = await connect()\n", begin)
    assert changed == 1
    begin = begin.replace("import { StreamrClient } from '@streamr/sdk'\n", "")
    ours = f"import {{ config, connect }} from {json.dumps(str(SDK / 'client.mjs'))}\n"
    program = folder / "recipe.mjs"
    program.write_text(
        f"{ours}process.env.STREAM = config.stream\n{begin}{end}await client.destroy()\nprocess.exit(0)\n"
    )
    return program


async def _run_shell(stack: Stack, stream: str, words: str) -> str:
    """Standard output of a command of the recipe."""
    key = stack.folder / "user-key"
    if not key.exists():
        key.touch(0o600)
        key.write_text(USER.secret_hex())
    options = f"--network {stack.folder / 'network.toml'} --rpc {stack.rpc_url} --broker {stack.url}"
    ours = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STREAM": stream,
        "LOGSTORE_KEY_FILE": str(key),
        "LOGSTORE_CACHE_DIR": str(stack.folder / "cache"),
    }
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"{words.strip()} {options}"),
        env={**os.environ, **ours},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(LIMIT_S):
        out, err = await process.communicate()
    assert process.returncode == 0, (out + err).decode()[-3000:]
    return out.decode()


async def test_no_node_has_asked_for_anything_beyond_loopback(
    stack: Stack, published: tuple[str, list[Message]]
) -> None:
    assert published[1]
    lines = (stack.folder / "asked").read_text().splitlines()
    assert lines.count("started") >= 2  # the network's nodes, and the publisher
    assert set(lines) == {"started"}


async def _wait_until_stored(stack: Stack, stream: str, messages: list[Message]) -> None:
    """The last messages may still be under way to the broker."""
    async with asyncio.timeout(30):
        while True:
            held = 0
            for number in range(PARTITIONS):
                held += len(await _ask_broker(stack, stream, number))
            if held >= len(messages):
                return
            await asyncio.sleep(0.1)


async def _ask_broker(stack: Stack, stream: str, partition: int) -> list[dict[str, Any]]:
    """What it holds of a partition, as Streamr's storage interface says it."""
    path = f"/streams/{stream.replace('/', '%2F')}/data/partitions/{partition}/from"
    async with httpx.AsyncClient(base_url=stack.url) as client:
        answer = await client.get(path, params={"fromTimestamp": 0, "format": "object"})
    said: list[dict[str, Any]] = answer.json() if answer.status_code == 200 and answer.content else []
    return said


def _identity(message: Message) -> list[Any]:
    publisher = _hex(message.publisher_id)
    return [message.timestamp_ms, message.sequence_number, publisher, message.msg_chain_id]
