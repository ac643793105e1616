"""Parts of the network that have a place: ports that stay theirs, and what they are started with, once or again."""

from __future__ import annotations

import json
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from validator.devnet.children import Children
from validator.devnet.folder import RunFolder, write_private
from validator.devnet.plan import broker_name
from validator.devnet.process import reserve

FLOWER_USER = "operator"


def write_config(folder: RunFolder, name: str, config: Mapping[str, Any]) -> Path:
    """The config file of one process; it may hold keys."""
    return write_private(folder.path / "configs" / f"{name}.json", json.dumps(config, default=str, indent=1))


def start_role(
    children: Children,
    folder: RunFolder,
    module: str,
    name: str,
    config: Mapping[str, Any],
    *,
    may_end: bool = False,
    sockets: Sequence[int] = (),
) -> None:
    path = write_config(folder, name, config)
    words = [sys.executable, "-m", f"validator.devnet.{module}", "--config", str(path)]
    children.start(name, words, may_end=may_end, sockets=sockets)


@dataclass(slots=True)
class Doors:
    """Two ports of one process: for everybody, and for its operator. Its own before it runs, since others are told
    them; it inherits the sockets, and whoever is started again has the same ports. Until it can answer, connections are
    refused: in a queue they would hang for as long as it imports."""

    public: int
    operator: int
    _held: tuple[socket.socket, ...] = ()

    @classmethod
    def reserve(cls) -> Self:
        public, operator = reserve(), reserve()
        return cls(public.getsockname()[1], operator.getsockname()[1], (public, operator))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.public}"

    @property
    def operator_url(self) -> str:
        return f"http://127.0.0.1:{self.operator}"

    @contextmanager
    def handed_down(self) -> Iterator[list[int]]:
        """Descriptors, public first, for a child that is started meanwhile."""
        listeners = self._held or (reserve(self.public), reserve(self.operator))
        self._held = ()
        try:
            yield [each.fileno() for each in listeners]
        finally:
            for each in listeners:
                each.close()


@dataclass(slots=True)
class BrokerPlace:
    """Where a broker will be: its URLs are told before it runs, since the chain names them."""

    index: int
    doors: Doors = field(default_factory=Doors.reserve)
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return broker_name(self.index)

    @property
    def url(self) -> str:
        return self.doors.url

    @property
    def operator_url(self) -> str:
        return self.doors.operator_url

    def start(self, children: Children, folder: RunFolder) -> None:
        """Start it as ``config`` says, once or again."""
        with self.doors.handed_down() as (public, operator):
            self.config["settings"] |= {"fd": public, "operator_fd": operator}
            start_role(children, folder, "broker", self.name, self.config, sockets=[public, operator])


@dataclass(slots=True)
class ValidatorProcess:
    """One validator's place: its server's ports, and the environment of all its processes."""

    index: int
    name: str
    doors: Doors
    environment: dict[str, str]
    has_own_beat: bool = False
    """Beat is a process beside the worker, else a thread in it."""
    clock_file: Path | None = None
    """Where its processes read by how many seconds their clock is off."""

    @property
    def validator_url(self) -> str:
        return self.doors.url

    @property
    def operator_url(self) -> str:
        return self.doors.operator_url

    @property
    def server_name(self) -> str:
        return f"{self.name}.serve"

    @property
    def worker_name(self) -> str:
        return f"{self.name}.worker"

    @property
    def beat_name(self) -> str:
        return f"{self.name}.beat"

    @property
    def process_names(self) -> tuple[str, ...]:
        return (self.server_name, self.worker_name, *([self.beat_name] if self.has_own_beat else []))

    def start_init(self, children: Children) -> str:
        """Migrate the database; the name of the child to wait for."""
        name = f"{self.name}.init"
        self._start(children, name, ["init"], may_end=True)
        return name

    def start_drain(self, children: Children, wait_s: float) -> str:
        """Have the worker finish what costs money and take up nothing more; the name of the child to wait for."""
        name = f"{self.name}.drain"
        self._start(children, name, ["drain", "bundle", "report", "--wait", f"{wait_s:.0f}"], may_end=True)
        return name

    def start(self, children: Children) -> None:
        """Start server, worker, and beat where it is a process of its own."""
        self.start_server(children)
        self.start_worker(children)
        if self.has_own_beat:
            self.start_beat(children, self.beat_name)

    def start_server(self, children: Children) -> None:
        with self.doors.handed_down() as (peers, operator):
            own = {"LOGSTORE_PEERS_FD": str(peers), "LOGSTORE_OPERATOR_FD": str(operator)}
            self._start(children, self.server_name, ["serve"], own, [peers, operator])

    def start_worker(self, children: Children) -> None:
        own = {"LOGSTORE_EMBED_BEAT": "0" if self.has_own_beat else "1"}
        self._start(children, self.worker_name, ["worker", "--name", self.name], own)

    def start_beat(self, children: Children, name: str) -> None:
        self._start(children, name, ["beat"])

    def _start(
        self,
        children: Children,
        name: str,
        words: Sequence[str],
        own: Mapping[str, str] | None = None,
        sockets: Sequence[int] = (),
        *,
        may_end: bool = False,
    ) -> None:
        program = ["validator.cli"]
        if self.clock_file is not None:
            program = ["validator.devnet.stepped_clock", str(self.clock_file)]
        environment = {**self.environment, **(own or {})}
        words = [sys.executable, "-m", *program, *words]
        children.start(name, words, environment=environment, sockets=sockets, may_end=may_end)

    def start_flower(self, children: Children, folder: RunFolder) -> tuple[str, str]:
        """Flower for this validator: address and password."""
        port = _free_port()
        password = secrets.token_urlsafe(9)
        own = {"FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{password}"}
        words = [sys.executable, "-m", "validator.cli", "flower", "--port", str(port)]
        children.start(f"{self.name}.flower", words, environment={**self.environment, **own})
        write_private(folder.path / "keys" / f"{self.name}.flower", f"{FLOWER_USER}:{password}\n")
        return f"http://127.0.0.1:{port}", password


def _free_port() -> int:
    """A port that is free now, for a program that must be told one."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
