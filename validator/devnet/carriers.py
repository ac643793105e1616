"""The network that carries a run's messages: Streamr's own nodes on loopback, or a hub that stands for them.

Real: two entry points and the publishers' node in one Node process, which saves two times 80 MB; a node of its own for
each broker, started and watched by the broker. Simulated: one hub for all.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from validator.devnet.bus import BusConfig, NodeConfig, PeerConfig
from validator.devnet.children import Children
from validator.devnet.folder import RunFolder
from validator.devnet.plan import NetworkChoice, Options, broker_name, make_node_id
from validator.net.streamr.node_process import Node, Program
from validator.protocol.errors import ConfigError
from validator.setup.binaries import find_streamr
from validator.setup.console import SetupError

ENTRY_POINTS = 2
SPARES = 4
PROCESS = "streamr"


class Kind(StrEnum):
    REAL = "real"
    SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class Carrier:
    """What runs, and how publishers and each broker reach it. ``why`` it is simulated; empty where it is real."""

    kind: Kind
    why: str
    publisher: BusConfig
    brokers: tuple[BusConfig, ...]
    entry_points: tuple[PeerConfig, ...] = ()
    packages: Path | None = None
    node: str = ""
    spares: tuple[PeerConfig, ...] = ()
    """Places in the network for one node more, tried in turn."""

    def describe(self) -> str:
        return f"{self.kind}, {self.why}" if self.why else str(self.kind)


def choose_network(options: Options) -> tuple[str, Path] | str:
    """Node and its packages where the network is to be the real one, else why it is simulated.

    Raises:
        ConfigError: the real network was asked for and cannot be had.
    """
    if options.network == NetworkChoice.SIMULATED:
        return "as asked for"
    try:
        return find_streamr()
    except SetupError as error:
        if options.network == NetworkChoice.REAL:
            raise ConfigError(f"--network: {error}", field="network") from error
        return str(error)


def start_carrier(children: Children, folder: RunFolder, options: Options) -> Carrier:
    """Start the network's own process; brokers start their nodes themselves."""
    chosen = choose_network(options)
    if isinstance(chosen, str):
        return _start_hub(children, folder, options, chosen)
    node, packages = chosen
    peers = [
        PeerConfig(make_node_id(options.seed, number), port)
        for number, port in enumerate(_free_ports(ENTRY_POINTS + 1 + SPARES + options.brokers))
    ]
    entry_points, publisher = peers[:ENTRY_POINTS], peers[ENTRY_POINTS]
    first_broker = ENTRY_POINTS + 1 + SPARES
    spares = tuple(peers[ENTRY_POINTS + 1 : first_broker])
    program = Program(node, packages, [peer.peer() for peer in entry_points])
    config_file, own = folder.path / "configs" / f"{PROCESS}.json", folder.sockets / "publisher.bus"
    program.write_config(config_file, [*(Node(peer.peer()) for peer in entry_points), Node(publisher.peer(), own)])
    children.start(PROCESS, program.words(config_file), is_server=True)
    brokers = []
    for index, peer in enumerate(peers[first_broker:]):
        name = broker_name(index)
        home = folder.logs / name
        home.mkdir(exist_ok=True)
        config = NodeConfig(node, packages, entry_points, peer, home)
        brokers.append(BusConfig(folder.sockets / f"{name}.bus", config))
    return Carrier(Kind.REAL, "", BusConfig(own), tuple(brokers), tuple(entry_points), packages, node, spares)


def _start_hub(children: Children, folder: RunFolder, options: Options, why: str) -> Carrier:
    path = folder.sockets / "hub"
    words = [sys.executable, "-m", "validator.net.streamr.simulated", "--socket", str(path)]
    children.start(PROCESS, words, is_server=True)
    return Carrier(Kind.SIMULATED, why, BusConfig(path), (BusConfig(path),) * options.brokers)


def _free_ports(count: int) -> Sequence[int]:
    """Ports that are free now, for programs that must be told one: all different."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
