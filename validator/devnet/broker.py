"""A broker of the development network: a broker as everybody runs it, with losses behind its network and its ears open.

``python -m validator.devnet.broker --config FILE.json`` runs ``validator.broker`` on inherited sockets. What is put in:

    the bus      reached as the run says, and ``FaultyBus`` behind it: loopback loses nothing
    two logs     JSON lines. ``delivery_log`` {"time_ms", "sha256", "form", "line"} per delivered message, once it can
                 be queried; "refused" with the reason where it was. ``published_log`` {"time_ms", "kind": "receipt"
                 or "system", "stream", "partition", "form", "line"} per form of a message of its own. ``form`` and
                 ``line`` are those of ``publisher``
    a lie       with ``lies`` it is the run's liar (``lying``)
    POST /ingest frames of protobuf, judged like the network's: forged copies of a message, which nodes do not carry
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from validator import log as logs
from validator.broker.admission import Admission, Judged
from validator.broker.config import BrokerSettings
from validator.broker.neighbours import Neighbours
from validator.broker.refusal import read_body
from validator.broker.run import Hooks, load_network, run_broker
from validator.devnet.bus import BusConfig, FaultsConfig, FaultyBus, open_bus
from validator.devnet.lying import Liar, LyingApp, LyingStore
from validator.devnet.network import log_form, log_forms, parcel_of
from validator.devnet.plan import LyingKind
from validator.devnet.process import LineLog, now_ms, read_config, run
from validator.net.brokers.pages import read_frames
from validator.ports.bus import Delivered, MessageBus
from validator.protocol.codec.protobuf import read_protobuf, write_protobuf
from validator.protocol.codec.receipt import parse_receipt
from validator.protocol.codec.received import PROTOBUF
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import hash_body
from validator.protocol.model import Address, Record

MAX_INGEST_BYTES = 64 << 20


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The broker's config file. ``settings``: those of ``BrokerSettings``, by name, secrets too."""

    settings: dict[str, str | int | float | bool]
    delivery_log: Path
    published_log: Path
    bus: BusConfig
    faults: FaultsConfig
    lies: LyingKind | None = None


class Ears:
    """What the run's check reads of a broker."""

    def __init__(self, config: Config) -> None:
        self._deliveries = LineLog(config.delivery_log)
        self._published = LineLog(config.published_log)

    def on_judged(self, delivered: Sequence[Delivered], judged: Sequence[Judged]) -> None:
        time_ms = now_ms()
        self._deliveries.write_all(
            {
                "time_ms": time_ms,
                "sha256": hash_body(message.data).hex(),
                **log_form(PROTOBUF, message.data),
                "refused": answer.why,
            }
            for message, answer in zip(delivered, judged, strict=True)
            if answer.why is not None
        )

    def on_kept(self, records: Sequence[Record]) -> None:
        """From the network, from another broker, or posted: from now on it can be queried here."""
        time_ms = now_ms()
        bodies = [write_protobuf(record.message) for record in records]
        self._deliveries.write_all(
            {"time_ms": time_ms, "sha256": hash_body(body).hex(), **log_form(PROTOBUF, body)} for body in bodies
        )

    def on_signed(self, record: Record) -> None:
        """What is logged first is logged whatever becomes of this process."""
        m = record.message
        kind = "system" if parse_receipt(m.content, Address(m.publisher_id)) is None else "receipt"
        told = {"time_ms": now_ms(), "kind": kind, "stream": m.stream_id, "partition": m.partition}
        forms = log_forms(parcel_of(m))
        self._published.write_all({**told, **form} for form in forms)

    def on_published(self, record: Record) -> None:
        """From now on it can be queried here."""
        form = log_form(PROTOBUF, write_protobuf(record.message))
        self._deliveries.write({"time_ms": now_ms(), "sha256": record.leaf.hex(), **form})


def make_door(admission: Admission, ears: Ears) -> Route:
    """``POST /ingest``."""

    async def ingest(request: Request) -> Response:
        bodies: list[bytes] = []
        read_frames([await read_body(request, MAX_INGEST_BYTES)], lambda found, _form: bodies.extend(found))
        delivered = [Delivered(part, body) for body in bodies if (part := _part_of(body)) is not None]
        judged = await asyncio.to_thread(admission.admit, [(d.part, d.data) for d in delivered], PROTOBUF)
        await asyncio.to_thread(ears.on_judged, delivered, judged)
        return JSONResponse({"received": len(bodies)})

    return Route("/ingest", ingest, methods=["POST"])


def _part_of(body: bytes) -> tuple[str, int] | None:
    try:
        return read_protobuf(body).stream_part
    except MalformedInput:
        return None


def main(config_file: Path) -> None:
    """Serve until SIGTERM. Raises ConfigError before the first connection."""
    config = read_config(Config, config_file)
    settings = BrokerSettings(**config.settings)  # type: ignore[arg-type]  # judged there
    logs.configure(settings.log_level, settings.log_format)
    ears = Ears(config)

    async def open_faulty() -> MessageBus:
        return FaultyBus(await open_bus(config.bus), config.faults)

    hooks = Hooks(
        open_bus=open_faulty,
        on_judged=ears.on_judged,
        on_kept=ears.on_kept,
        on_signed=ears.on_signed,
        on_published=ears.on_published,
        routes=lambda admission: [make_door(admission, ears)],
    )
    if config.lies is not None:
        make_lying(hooks, config.lies, settings, ears)
    run_broker(settings, hooks)


def make_lying(hooks: Hooks, kind: LyingKind, settings: BrokerSettings, ears: Ears) -> None:
    """Put a liar into all places where one could lie."""
    network = load_network(settings)
    context = SigningContext(network.chain_id, network.contracts.report_manager)
    liar: Liar

    def interfere(neighbours: Neighbours) -> None:
        nonlocal liar
        liar = Liar(kind, settings.signing_key(), context, lambda: sorted(neighbours.find_others()))
        honest = neighbours.perform

        def perform(path: str, sender: Address | None, body: bytes) -> bytes:
            return liar.perform(path, body, lambda: honest(path, sender, body), neighbours.store, neighbours.sums)

        neighbours.perform, neighbours.say = perform, liar.say

    hooks.interfere = interfere
    hooks.arrivals = lambda store: LyingStore(store, liar)
    hooks.app = lambda app: LyingApp(app, liar)
    hooks.on_kept = lambda records: ears.on_kept([record for record in records if liar.keeps(record)])


if __name__ == "__main__":
    sys.exit(run("broker", main, sys.argv[1:]))
