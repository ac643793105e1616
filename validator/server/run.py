"""``logstore-validator serve``: both listeners and the head watcher in one process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from validator import log as logs
from validator import metrics
from validator.lasting import LastingThread, Watchdog
from validator.net.http.listening import listen, listener_config
from validator.net.signed.listener import Limits
from validator.net.signed.signing import network_digest
from validator.outages import Outage
from validator.ports.queue import Tasks
from validator.protocol.errors import TransientError, ValidatorError
from validator.protocol.model import Address
from validator.server import operator, peers
from validator.server.surroundings import Lookout
from validator.settings import Settings
from validator.steps.chain_watch import prefetch_states, watch_head
from validator.store.database import DatabaseUnavailable
from validator.wiring import Node, share_metrics

log = logs.get_logger(__name__)

WATCH_S = 0.5
LOOKOUT_S = 15.0
WATCH_SILENT_S = 180.0
"""Far above what one look may take: every call to the chain has a deadline."""


def serve(settings: Settings, tasks: Tasks) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError where a listener or the database cannot be opened."""
    node = Node(settings, tasks)
    node.require_secrets()
    node.require_identity()  # fails here, in one line, where the database is not at head or not the key's
    node.show_warnings()
    share_metrics(settings)
    metrics.clear_ended(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
    sockets = {
        "peers": listen(settings.peers_fd, settings.peers_host, settings.peers_port, "LOGSTORE_PEERS_PORT"),
        "operator": listen(
            settings.operator_fd, settings.operator_host, settings.operator_port, "LOGSTORE_OPERATOR_PORT"
        ),
    }
    lookout = Lookout(node)
    limits = Limits(allow_nets=settings.nets)
    apps = {
        "peers": peers.create_app(
            node.peer_service,
            node.voting_key,
            node.signing,
            network_digest(node.network),
            limits,
            on_refusal=count_refusal,
            now_ms=node.clock.now_ms,
        ),
        "operator": operator.create_app(node.view, lambda: lookout.newest),
    }
    watcher = LastingThread("head-watcher", _Watch(node), every_s=WATCH_S)
    around = LastingThread("lookout", lookout, every_s=LOOKOUT_S)
    watchdog = Watchdog([watcher], limit_s=WATCH_SILENT_S)
    watcher.start()
    around.start()
    watchdog.start()
    log.info("serve.started", address=node.address, network=node.network.name)
    try:
        asyncio.run(_run(apps, sockets, settings))
    finally:
        watchdog.stop()
        watcher.stop()
        around.stop()
        node.peers.close()
    log.info("serve.stopped")


def count_refusal(name: str, _sender: Address | None) -> None:
    """A request of a peer that was not served, into the metrics."""
    metrics.peer_refusals.labels(name).inc()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are handled once for both listeners."""
        yield


async def _run(apps: dict[str, Any], sockets: dict[str, socket.socket], settings: Settings) -> None:
    servers = {}
    for name, app in apps.items():
        host, port = sockets[name].getsockname()[:2]
        servers[name] = _Server(listener_config(app, host, port, allow_nets=settings.nets))
        log.info("listening", listener=name, host=host, port=port)

    def stop() -> None:
        for server in servers.values():
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await asyncio.gather(*(server.serve(sockets=[sockets[name]]) for name, server in servers.items()))


class _Watch:
    """Store the newest blocks, and the state at ``B`` of coming windows while it is recent; says each fault once."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._outage = Outage("chain")
        self._fault = ""

    def __call__(self, beat: Callable[[], None]) -> None:
        beat()
        self._node.context.identity.voting_block()  # says so here too when voting stops, such as after an export
        try:
            watch_head(self._node.context)
            prefetch_states(self._node.context)
        except DatabaseUnavailable as error:  # which tells of itself
            log.debug("chain.not_stored", reason=str(error))
        except TransientError as error:
            self._outage.failed(str(error))
        except ValidatorError as error:
            if str(error) != self._fault:
                log.error("chain.fault", reason=str(error))  # noqa: TRY400  (a named fault needs no trace)
            self._fault = str(error)
        else:
            self._fault = ""
            self._outage.worked()
