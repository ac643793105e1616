"""What stands for The Graph, asked as Streamr's SDK asks it."""

from __future__ import annotations

import pytest

from validator.devnet.indexer import Index
from validator.net.chain.registries import Change, RegistryEvent
from validator.protocol.model import Address

STREAM, OTHER = "0x" + "cc" * 20 + "/a", 'name.eth/"b"'
NODE, GONE = Address(b"\x01" * 20), Address(b"\x02" * 20)
NODE_TEXT = "0x" + "01" * 20
OF_STREAM = """{
    stream (id: "%s") {
        id
        metadata
        storageNodes (first: 1000 orderBy: "id" where: { id_gt: ""}) { id metadata lastSeen }
    }
}"""


@pytest.fixture
def index() -> Index:
    index = Index(block=7)
    index.add(
        [
            RegistryEvent(Change.STREAM_CREATED, STREAM, metadata='{"partitions":1}'),
            RegistryEvent(Change.STREAM_UPDATED, STREAM, metadata='{"partitions":2}'),
            RegistryEvent(Change.STREAM_CREATED, OTHER, metadata="{}"),
            RegistryEvent(Change.STREAM_CREATED, "deleted", metadata="{}"),
            RegistryEvent(Change.STREAM_DELETED, "deleted"),
            RegistryEvent(Change.NODE_UPDATED, node=NODE, metadata='{"urls":[]}', seen_s=5),
            RegistryEvent(Change.NODE_UPDATED, node=GONE, metadata="{}", seen_s=6),
            RegistryEvent(Change.ADDED, STREAM, NODE),
            RegistryEvent(Change.ADDED, STREAM, GONE),
            RegistryEvent(Change.ADDED, OTHER, NODE),
            RegistryEvent(Change.REMOVED, OTHER, NODE),
            RegistryEvent(Change.NODE_REMOVED, node=GONE),
        ]
    )
    return index


def test_the_storage_nodes_of_a_stream_are_those_that_are_still_registered(index: Index) -> None:
    data = index.answer(OF_STREAM % STREAM)
    assert data is not None
    assert data["stream"] == {
        "id": STREAM,
        "metadata": '{"partitions":2}',
        "storageNodes": [{"id": NODE_TEXT, "metadata": '{"urls":[]}'}],
    }
    other = index.answer(OF_STREAM % OTHER.replace('"', '\\"'))
    assert other is not None
    assert other["stream"]["storageNodes"] == []
    assert index.answer(OF_STREAM % "deleted") == {"stream": None, "_meta": {"block": {"number": 7}}}


def test_the_block_comes_with_every_answer_and_alone(index: Index) -> None:
    assert index.answer("{ _meta { block { number } } }") == {"_meta": {"block": {"number": 7}}}


def test_nodes_and_what_they_store(index: Index) -> None:
    node = {
        "id": NODE_TEXT,
        "metadata": '{"urls":[]}',
        "lastSeen": "5",
        "storedStreams": [{"id": STREAM, "metadata": '{"partitions":2}'}],
    }
    nodes = index.answer('{ nodes (first: 10 orderBy: "id" where: { id_gt: ""}) { id metadata lastSeen } }')
    one = index.answer(f'{{ node (id: "{NODE_TEXT}") {{ id storedStreams {{ id }} }} _meta {{ block {{ number }} }} }}')
    assert nodes is not None
    assert one is not None
    assert (nodes["nodes"], one["node"]) == ([node], node)
    assert index.answer('{ node (id: "0x00") { id } }') == {"node": None, "_meta": {"block": {"number": 7}}}
    streams = index.answer("{ streams (first: 1000) { id } }")
    assert streams is not None
    assert [stream["id"] for stream in streams["streams"]] == [STREAM, OTHER]


@pytest.mark.parametrize("query", ["", "{", "{ operators { id } }", "{ stream { id } }", '{ nodes (id: "a") { id } }'])
def test_other_questions_are_not_answered(index: Index, query: str) -> None:
    assert index.answer(query) is None
