"""Starts processes of the development network for tests, and asks them things."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import paths
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.model import Address

SYSTEM = "0x" + "aa" * 20 + "/system"
QUERY_MANAGER = "0x" + "bb" * 20
CHAIN_ID = 31337


@dataclass
class Cast:
    """Processes with their files in one folder; ended, whatever happens, by the context manager."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, module: str, name: str, config: dict[str, Any]) -> subprocess.Popen[bytes]:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(config, default=str))
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--config", str(path)],
            cwd=paths.ROOT,
            stderr=subprocess.PIPE,
        )
        self.processes.append(process)
        return process

    def url(self, name: str) -> str:
        """Base URL of a process once it has written its port."""
        path = self.folder / f"{name}.port"
        for _ in range(600):
            if path.exists():
                return f"http://127.0.0.1:{int(path.read_text())}"
            ended = [p for p in self.processes if p.poll() is not None]
            if ended and ended[-1].stderr is not None:
                raise AssertionError(ended[-1].stderr.read().decode())
            time.sleep(0.05)
        raise AssertionError(f"{name} has not written its port")

    def broker(self, name: str, **more: Any) -> str:
        """Start a broker as they were before ours; its URL."""
        self.start("tests.fakes.old_broker", name, self.broker_config(name, **more))
        return self.url(name)

    def broker_config(self, name: str, **more: Any) -> dict[str, Any]:
        return {
            "key": "0x" + broker_key(name).secret_hex()[2:],
            "port_file": self.folder / f"{name}.port",
            "delivery_log": self.folder / f"{name}.deliveries",
            "published_log": self.folder / f"{name}.published",
            "system_stream": SYSTEM,
            "query_manager": QUERY_MANAGER,
            **more,
        }

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The JSON lines of a file in the folder."""
        return [json.loads(line) for line in (self.folder / name).read_bytes().split(b"\n") if line]


def broker_key(name: str) -> SigningKey:
    return SigningKey(name.encode().rjust(32, b"\x01"))


def broker_address(name: str) -> Address:
    return broker_key(name).address


@contextmanager
def run_cast(folder: Path) -> Iterator[Cast]:
    cast = Cast(folder)
    try:
        yield cast
    finally:
        for process in cast.processes:
            process.terminate()
        for process in cast.processes:
            process.wait(10)
            if process.stderr is not None:
                process.stderr.close()
