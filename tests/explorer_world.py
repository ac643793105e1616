"""A broker with some bundles and a tail, all of it really signed, and its explorer; nothing outside this process."""

from __future__ import annotations

import html
from pathlib import Path

from starlette.applications import Starlette

from tests.broker_parts import BrokerParts
from tests.builders import GENESIS_MS, a_key, a_record, a_stream_id
from tests.certified_world import BUNDLE_MS, NETWORK, World
from validator.broker.evidence import EvidenceBook, Lie
from validator.broker.explorer.pieces import address
from validator.broker.explorer.reading import Parts
from validator.broker.explorer.routes import Explorer
from validator.broker.heartbeat import Heard, Hearing
from validator.broker.history import History
from validator.broker.slices import SliceSums
from validator.broker.sum_book import SqliteSums
from validator.protocol.codec.heartbeat import Heartbeat
from validator.protocol.model import Node, Record, Root
from validator.protocol.slices import SLICE_MS, Sum

STREAM = a_stream_id(1, "weather/roof")
HOSTILE = a_stream_id(2, "<script>alert(1)</script>'\"&\u202e\u05d0/\x1b[31m")
PART = (STREAM, 0)
BUNDLES = 3
NOW_MS = GENESIS_MS + 60_000
HOSTILE_CONTENT = (
    '{"a":"</script><script>alert(2)</script>","b":"\u202eevil\u2066","c":"\u05e9\u05dc\u05d5\u05dd"}'.encode()
)
OTHER, SILENT = a_key(5).address, a_key(6).address
LIES = {(SILENT, Lie.WITHHELD): 2}


def a_reading(at_ms: int, number: int = 0, **fields: object) -> Record:
    content = b'{"temperature":%d.%d,"unit":"C","n":%d}' % (18 + number % 7, number % 10, number)
    key = a_key(1 + number % 3)
    values = {"stream_id": STREAM, "timestamp_ms": GENESIS_MS + at_ms, "content": content, **fields}
    return a_record(key, **values)


def a_heartbeat() -> Heartbeat:
    recent = Sum(GENESIS_MS - GENESIS_MS % SLICE_MS, 5 * SLICE_MS, 120, Root(b"\x05" * 32))
    kept = Sum(recent.start_ms - 30 * SLICE_MS, 30 * SLICE_MS, 2_480, Root(b"\x06" * 32))
    return Heartbeat(("https://broker.example",), (BUNDLES - 1, Root(b"\x07" * 32)), recent, kept)


def address_of(record: Record) -> str:
    """Path of a message's page."""
    m = record.message
    leaf = record.leaf.hex()
    path = address("/explorer/message", id=m.stream_id, partition=m.partition, timestamp=m.timestamp_ms, leaf=leaf)
    return html.unescape(path)


class ExplorerWorld:
    """``certified``: records in bundles; ``tail``: records that none holds yet."""

    def __init__(self, folder: Path, rpc_url: str = "") -> None:
        self.world = World(folder / "world")
        self.world.folder.mkdir(parents=True)
        self.certified = [a_reading(500 + 1_000 * n, n) for n in range(BUNDLES * BUNDLE_MS // 1_000)]
        self.late = a_reading(700, 77)
        self.hostile = a_record(
            a_key(2),
            stream_id=HOSTILE,
            timestamp_ms=GENESIS_MS + 5_000,
            content=HOSTILE_CONTENT,
            msg_chain_id="<b>&\u202e",
        )
        self.tail = [a_reading(BUNDLES * BUNDLE_MS + 500 * n, n) for n in range(40)]
        for number in range(BUNDLES):
            held = [r for r in [*self.certified, self.hostile] if self._window_of(r) // 2 == number]
            windows = [[r for r in held if self._window_of(r) % 2 == place] for place in (0, 1)]
            self.world.add_bundle(windows, [self.late] if number == 1 else [])
        self.broker = self.world.broker("broker", [*self.certified, self.late, self.hostile, *self.tail])
        self.parts = self._make_parts(folder)
        self.explorer = Explorer(self.parts, rpc_url)
        self.app = Starlette(routes=self.explorer.routes())

    def _make_parts(self, folder: Path) -> Parts:
        self.shell = BrokerParts(folder, streams={STREAM: 2, HOSTILE: 1})
        self.shell.now_ms = NOW_MS
        for number, other in enumerate((OTHER, SILENT)):
            url = f"https://{'<b>broker</b>' if number else 'broker'}.example"
            self.shell.source.nodes.append(Node(other, (3 - number) * 10**18, url, None))
        self.shell.source.height = NOW_MS // 1000 - 2
        self.shell.chain.refresh()
        core = self.shell.broker
        core.store, core.network = self.broker.store, NETWORK
        self.sums = SliceSums(SqliteSums(str(folder / "sums.sqlite")), core.store, from_ms=GENESIS_MS - 3_600_000)
        while self.sums.settle(NOW_MS):
            pass
        hearing = Hearing(core.address, core.chain.system_part, lambda: (), EvidenceBook(), core.now_ms)
        hearing.newest[OTHER] = Heard(a_heartbeat(), NOW_MS - 700, NOW_MS - 700, b"")
        assert isinstance(self.broker.history, History)
        return Parts(core, self.broker.bundles, self.broker.history, self.sums, hearing, LIES)

    @staticmethod
    def _window_of(record: Record) -> int:
        return (record.message.timestamp_ms - GENESIS_MS) // (BUNDLE_MS // 2)

    def close(self) -> None:
        self.explorer.close()
        self.sums.close()
        self.shell.close()
