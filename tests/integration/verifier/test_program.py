"""The check as a program: over real HTTP, with its exit status, its lines and its file of figures."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests import paths
from tests.fakes.finished_run import FinishedRun, a_plan, finish, window

ROOT = paths.ROOT


@contextmanager
def serving(run: FinishedRun) -> Iterator[str]:
    """Chain (POST) and gateway (GET) of a finished run on one port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path == "/graphql":
                self.answer(json.dumps(run.gateway.post_json(self.path, request)).encode())
                return
            result = run.chain.ask(request["method"], *request["params"])
            self.answer(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode())

        def do_GET(self) -> None:
            try:
                if self.path.startswith("/raw/"):
                    self.answer(run.gateway.get_bytes(self.path, 1 << 20))
                else:
                    self.answer(json.dumps(run.gateway.get_json(self.path)).encode())
            except KeyError:
                self.send_error(404)

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def check(run: FinishedRun, url: str, gateway_url: str | None = None) -> tuple[int, list[str], dict[str, Any]]:
    described = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps({**described, "rpc_url": url, "gateway_url": gateway_url or url}))
    figures = run.folder / "verified.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.verifier", "--run", str(run.folder), "--json", str(figures)],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout.splitlines(), json.loads(figures.read_text())


def test_a_good_run_ends_with_verified_and_status_0(tmp_path: Path) -> None:
    run = finish(tmp_path, a_plan())
    with serving(run) as url:
        status, lines, figures = check(run, url)
    assert (status, lines[-1]) == (0, "verified")
    assert lines[0] == "claims, and how often each was checked:"
    assert "  observations used: 28 checked" in lines
    assert "cannot be known from outside:" in lines
    assert figures["verified"] is True
    assert figures["claims"]["observations used"] == {"checked": 28, "failed": 0}
    assert figures["messages_archived"] == 11


def test_a_bad_run_names_each_failure_and_ends_with_status_1(tmp_path: Path) -> None:
    plan = a_plan()
    del plan.sets[window(0)][0]
    run = finish(tmp_path, plan)
    with serving(run) as url:
        status, lines, figures = check(run, url)
    assert status == 1
    assert "reached a broker and is in no bundle" in lines[0]
    assert "  messages complete: 11 checked, 1 FAILED" in lines
    assert figures["failures"] == lines[: lines.index("claims, and how often each was checked:")]
    assert lines[-1] == f"not verified: {len(figures['failures'])} failure{'s' * (len(figures['failures']) > 1)}"
    assert figures["messages_missing"] == 1


def test_a_network_that_has_been_stopped_is_said_once(tmp_path: Path) -> None:
    run = finish(tmp_path, a_plan())
    with serving(run) as url:
        pass
    status, lines, figures = check(run, url)
    assert status == 1
    reason, verdict = lines
    assert reason.startswith(f"the EVM node at {url} does not answer: ConnectError; a run can be checked only while")
    assert verdict == "not verified: 1 failure"
    assert figures == {"verified": False, "failures": [reason]}


def test_a_gateway_that_has_been_stopped_is_said_once(tmp_path: Path) -> None:
    run = finish(tmp_path, a_plan())
    with serving(run) as url:
        status, lines, _ = check(run, url, gateway_url="http://127.0.0.1:1")
    assert status == 1
    assert lines[0].startswith("the Arweave gateway at http://127.0.0.1:1 does not answer: ConnectError; ")
    assert len(lines) == 2


def test_a_folder_that_is_none_of_a_run_ends_with_status_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.verifier", "--run", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"--run: {tmp_path}: FileNotFoundError")
