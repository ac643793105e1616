"""Streamr's registries of nodes and of storage on the run's chain: deployed, brokers registered, streams assigned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from validator.devnet.contracts import UNLIMITED, DevChain
from validator.net.chain.registries import Registry
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.model import Address

ASSIGNMENTS = "/assignments"


def deploy_registries(chain: DevChain, owner: SigningKey) -> Mapping[Registry, Address]:
    """Deploy both, without proxies, and say where all three registries are."""
    nodes = chain.deploy_beside(Registry.NODES)
    storage = chain.deploy_beside(Registry.STORAGE)
    streams = chain.deployment.contracts.stream_registry
    nobody = _hex(bytes(20))
    chain.transact_many(
        [
            (owner, Registry.NODES, "initialize", (_hex(owner.address), False, [], [])),
            (owner, Registry.STORAGE, "initialize", (_hex(streams), _hex(nodes), nobody)),
        ]
    )
    return {Registry.STREAMS: streams, Registry.NODES: nodes, Registry.STORAGE: storage}


def register_storage_nodes(
    chain: DevChain, owner: SigningKey, nodes: Sequence[tuple[SigningKey, str]], stream_ids: Sequence[str]
) -> None:
    """Each node says where it answers and makes its assignment stream, which anybody may read; the owner's streams are
    assigned to all of them. Nodes have been given gas."""
    calls: list[tuple[SigningKey, str, str, Sequence[object]]] = []
    for key, url in nodes:
        calls.append((key, Registry.NODES, "createOrUpdateNodeSelf", (json.dumps({"urls": [url]}),)))
        calls.append((key, Registry.STREAMS, "createStream", (ASSIGNMENTS, json.dumps({"partitions": 1}))))
        own = _hex(key.address) + ASSIGNMENTS
        calls.append((key, Registry.STREAMS, "setPublicPermission", (own, 0, UNLIMITED)))
    chain.transact_many(calls)
    addresses = [_hex(key.address) for key, _ in nodes]
    chain.transact_many(
        [(owner, Registry.STORAGE, "addAndRemoveStorageNodes", (stream, addresses, [])) for stream in stream_ids]
    )


def _hex(address: bytes) -> str:
    return "0x" + address.hex()
