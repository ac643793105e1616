"""What stands for The Graph: reads the registries' events, and answers the few questions that Streamr's clients ask.

``python -m validator.devnet.indexer --config FILE.json`` serves on 127.0.0.1:

    POST /    {"query": GraphQL}: ``_meta``, ``stream(id)``, ``streams``, ``node(id)``, ``nodes``

It reads no GraphQL but finds the question's root field and its id, as the clients of Streamr write them (SDK 103.3.1),
and answers with everything it knows of that. Anything else is an error of the form that The Graph gives. Each question
reads the chain up to its head first.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from validator.devnet.process import listen, read_address, read_config, run, serve
from validator.net.chain.registries import Change, Registry, RegistryEvent, StreamrRegistries
from validator.net.chain.rpc import Rpc
from validator.protocol.errors import ValidatorError
from validator.protocol.model import Address

MAX_QUERY_BYTES = 64 << 10
_ROOT = re.compile(r'\s*(?:query[^{]*)?\{\s*(_meta|streams?|nodes?)\b\s*(?:\(\s*id\s*:\s*"((?:[^"\\]|\\.)*)"\s*\))?')


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where the chain and its registries are; addresses are 0x hex."""

    port_file: Path
    rpc_url: str
    stream_registry: str
    node_registry: str
    storage_registry: str
    port: int = 0


class _Body(msgspec.Struct):
    query: str


@dataclass(slots=True)
class Index:
    """What the events up to ``block`` add up to."""

    block: int = -1
    streams: dict[str, str] = field(default_factory=dict)
    """Metadata by id."""
    nodes: dict[Address, tuple[str, int]] = field(default_factory=dict)
    """Metadata, and when seen."""
    pairs: set[tuple[str, Address]] = field(default_factory=set)

    def add(self, events: Iterable[RegistryEvent]) -> None:
        """Events of one range of blocks; those of each registry in their order."""
        for event in events:
            if event.change in (Change.STREAM_CREATED, Change.STREAM_UPDATED):
                self.streams[event.stream_id] = event.metadata
            elif event.change is Change.STREAM_DELETED:
                self.streams.pop(event.stream_id, None)
            elif event.change is Change.NODE_UPDATED:
                self.nodes[event.node] = (event.metadata, event.seen_s)
            elif event.change is Change.NODE_REMOVED:
                self.nodes.pop(event.node, None)
            elif event.change is Change.ADDED:
                self.pairs.add((event.stream_id, event.node))
            else:
                self.pairs.discard((event.stream_id, event.node))

    def answer(self, query: str) -> dict[str, Any] | None:
        """The data of an answer; None for a question that is none of those."""
        found = _ROOT.match(query)
        if found is None or ((name := found[1]) in ("stream", "node")) != (found[2] is not None):
            return None
        data: dict[str, Any] = {"_meta": {"block": {"number": self.block}}}
        wanted = msgspec.json.decode(f'"{found[2]}"', type=str) if found[2] is not None else ""
        if name == "stream":
            data[name] = self._stream(wanted) if wanted in self.streams else None
        elif name == "streams":
            data[name] = [self._stream(stream_id) for stream_id in sorted(self.streams)]
        elif name == "node":
            data[name] = next((self._node(node) for node in self.nodes if f"0x{node.hex()}" == wanted.lower()), None)
        elif name == "nodes":
            data[name] = [self._node(node) for node in sorted(self.nodes)]
        return {name: data[name], **data}

    def _stream(self, stream_id: str) -> dict[str, Any]:
        nodes = sorted(node for stored, node in self.pairs if stored == stream_id and node in self.nodes)
        stored_at = [{"id": f"0x{node.hex()}", "metadata": self.nodes[node][0]} for node in nodes]
        return {"id": stream_id, "metadata": self.streams[stream_id], "storageNodes": stored_at}

    def _node(self, node: Address) -> dict[str, Any]:
        metadata, seen_s = self.nodes[node]
        stored = sorted(stream_id for stream_id, keeper in self.pairs if keeper == node)
        streams = [{"id": stream_id, "metadata": self.streams.get(stream_id, "")} for stream_id in stored]
        return {"id": f"0x{node.hex()}", "metadata": metadata, "lastSeen": str(seen_s), "storedStreams": streams}


class Indexer:
    """The index and what keeps it up."""

    def __init__(self, registries: StreamrRegistries) -> None:
        self._registries = registries
        self._index = Index()
        self._reading = asyncio.Lock()

    async def query(self, request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_QUERY_BYTES:
                return _error(f"more than {MAX_QUERY_BYTES} bytes", 413)
        try:
            query = msgspec.json.decode(body, type=_Body).query
            await self._read_on()
        except (msgspec.MsgspecError, ValidatorError) as error:
            return _error(str(error), 400)
        data = self._index.answer(query)
        return _error(f"not answered here: {query[:200]}", 400) if data is None else JSONResponse({"data": data})

    async def _read_on(self) -> None:
        """Up to the head. Raises TransientError, RemoteFault."""
        async with self._reading:
            head = await asyncio.to_thread(self._registries.fetch_head)
            if head > self._index.block:
                first = self._index.block + 1
                self._index.add(await asyncio.to_thread(self._registries.fetch_events, first, head))
                self._index.block = head


def _error(text: str, status: int) -> Response:
    return JSONResponse({"errors": [{"message": text}]}, status)


def main(config_file: Path) -> None:
    """Serve until SIGTERM. Raises ConfigError."""
    config = read_config(Config, config_file)
    addresses = {
        Registry.STREAMS: read_address(config.stream_registry, "stream_registry"),
        Registry.NODES: read_address(config.node_registry, "node_registry"),
        Registry.STORAGE: read_address(config.storage_registry, "storage_registry"),
    }
    indexer = Indexer(StreamrRegistries(Rpc([config.rpc_url]), addresses))
    app = Starlette(routes=[Route("/{rest:path}", indexer.query, methods=["POST"])])
    serve(app, listen(config.port), config.port_file)


if __name__ == "__main__":
    sys.exit(run("indexer", main, sys.argv[1:]))
