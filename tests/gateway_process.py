"""The development gateway as a process of its own, and its controls."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

START_LIMIT_S = 60.0
END_LIMIT_S = 30.0


@dataclass(frozen=True)
class GatewayProcess:
    """The running gateway: its port, its controls and its process."""

    port: int
    client: httpx.Client
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def same_under_another_name(self) -> str:
        return f"http://localhost:{self.port}"

    def control(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> httpx.Response:
        answer = self.client.request(method, f"{self.url}/devnet/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer

    def fail(self, kind: str, path: str, **rule: Any) -> None:
        self.control("faults", {"kind": kind, "path": path, **rule})

    def faults_left(self) -> int:
        return sum(int(rule["times"]) for rule in self.control("faults", method="GET").json())

    def mine(self, blocks: int = 1) -> None:
        self.control(f"mine/{blocks}")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It stands still: connections are taken by the kernel, and nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def stats(self) -> dict[str, Any]:
        return dict(self.control("stats", method="GET").json())

    def paid(self, bundle_root: str) -> int:
        return sum(self.stats()["paid"].get(bundle_root, {}).values())


@contextmanager
def run_gateway(folder: Path) -> Iterator[GatewayProcess]:
    """A gateway that mines on request only; it ends with the block, and must have printed nothing."""
    port_file = folder / "port"
    command = [sys.executable, "-m", "validator.devnet.gateway", "--port-file", str(port_file), "--mine-ms", "0"]
    process = subprocess.Popen(
        [*command, "--data", str(folder / "data"), "--log", str(folder / "log")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        until = time.monotonic() + START_LIMIT_S
        while not port_file.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        with httpx.Client(timeout=30, trust_env=False) as client:
            yield GatewayProcess(int(port_file.read_text()), client, process)
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=END_LIMIT_S)
    assert output == b"", "the gateway prints nothing"
