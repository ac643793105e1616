"""What one consumer reads a second, on this machine: a broker's stand-in sends answers that were made before, so that
all that is measured is the client's.

verified   messages a second of the client's CPU, each publisher's signature checked, trailer and root too
sdk        messages a second of CPU that Streamr's SDK reads by resend, with its checks, where Node is
none       the same answer into an Arrow table, nothing checked but order, span and count
first      how long after ``query`` the first message is there
flat       resident memory while ``--flat`` messages pass: how much it grew after the first twentieth
import     ``import logstore`` and ``logstore --help``, in processes of their own: seconds of CPU
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks import sdk_resend
from benchmarks.broker_parts import STREAM, make_records
from logstore.answers import QueryAnswer, make_request, parse_verify_level
from logstore.brokers import Brokers, Place
from tests.broker_parts import NOW_MS, a_network
from tests.builders import a_key
from validator.net.http.client import BoundedClient
from validator.net.http.urls import EVERYWHERE, check_url
from validator.protocol.codec.answer import Answer, Request, encode_answer, sign_answer
from validator.protocol.codec.signatures import verify_batch
from validator.protocol.codec.statement import SigningContext
from validator.protocol.merkle import RunningRoot
from validator.protocol.model import Flag, Record
from validator.setup.console import SetupError

OK = 0
GOALS = {
    "verified_per_core_s": 15_000,
    "verified_of_sdk_resend": 4,
    "none_arrow_per_core_s": 150_000,
    "import_ms": 300,
    "help_ms": 400,
}
_BROKER = a_key(77)
_NETWORK = a_network()
_CONTEXT = SigningContext(_NETWORK.chain_id, _NETWORK.contracts.report_manager)
_FORK = multiprocessing.get_context("fork")
PIECE_BYTES = 1 << 18
FLAT_ANSWER = 50_000


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks client", description=__doc__)
    parser.add_argument("--messages", type=int, default=40_000, help="messages of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--flat", type=int, default=1_000_000, help="messages that pass while memory is watched; 0: not"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(arguments)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])  # "per core" is of one, before threads are counted
    figures = measure_client(options.messages, options.rounds, options.flat) | measure_imports()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    for name, value in figures.items():
        goal = f"   goal {GOALS[name]:,}" if name in GOALS else ""
        print(f"{name.replace('_', ' '):<34}{value:>14,.2f}{goal}")
    return OK


def make_answer(records: Sequence[Record], request: Request) -> bytes:
    """Frames and trailer, as a broker sends them."""
    root = RunningRoot()
    root.add(record.leaf for record in records)
    signed_bytes = sum(record.signed_bytes for record in records)
    answer = Answer(
        request, b"", b"", len(records), signed_bytes, root.root(), None, 0, Flag(0), (), NOW_MS, _BROKER.address
    )
    objects = [record.canonical for record in records] + [encode_answer(sign_answer(answer, _BROKER, _CONTEXT))]
    return b"".join(len(data).to_bytes(4, "big") + data for data in objects)


def measure_client(count: int, rounds: int, flat: int) -> dict[str, float]:
    records = make_records(count)
    request = make_request(STREAM, 0, NOW_MS - 1_000 - count, NOW_MS)
    checking: list[float] = []
    verified: list[float] = []
    bare: list[float] = []
    first: list[float] = []
    with stand_in(make_answer(records, request)) as url:
        for _ in range(rounds):
            checking.append(_cpu(lambda: verify_batch(records)))
            verified.append(_cpu(lambda: _read(url, request, count)))
            bare.append(_cpu(lambda: _read_table(url, request, count)))
            first.append(_first(url, request))
    figures = {
        "signatures_alone_per_core_s": count / min(checking),
        "verified_per_core_s": count / min(verified),
        "verified_of_signatures": statistics.median(a / b for a, b in zip(checking, verified, strict=True)),
        "none_arrow_per_core_s": count / min(bare),
        "first_ms": 1_000 * min(first),
    }
    return figures | _beside_sdk(count, rounds, min(verified)) | measure_flat(flat)


def _beside_sdk(count: int, rounds: int, verified_s: float) -> dict[str, float]:
    """Nothing where Node or Streamr's packages are not here."""
    records = make_records(count, sdk_resend.STREAM)
    try:
        with stand_in(sdk_resend.make_raw_answer(records)) as url:
            taken_s = sdk_resend.measure_resend(url, records, rounds)
    except SetupError as error:
        print(f"without the SDK: {error}", file=sys.stderr)
        return {}
    return {"sdk_resend_per_core_s": count / taken_s, "verified_of_sdk_resend": taken_s / verified_s}


def _read(url: str, request: Request, count: int) -> None:
    with open_answer(url, request, "signatures") as answer:
        assert sum(1 for _ in answer) == count


def _read_table(url: str, request: Request, count: int) -> None:
    with open_answer(url, request, "none") as answer:
        assert answer.to_arrow().num_rows == count


def _first(url: str, request: Request) -> float:
    started = time.perf_counter()
    with open_answer(url, request, "signatures") as answer:
        next(iter(answer))
    return time.perf_counter() - started


def _cpu(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def measure_flat(count: int) -> dict[str, float]:
    """MiB that this process grew by while so many messages passed as columns, after the first twentieth of them."""
    if not count:
        return {}
    size = min(count, FLAT_ANSWER)
    records = make_records(size)
    request = make_request(STREAM, 0, NOW_MS - 1_000 - size, NOW_MS)
    answer = make_answer(records, request)
    del records
    passed, before = 0, 0.0
    with stand_in(answer) as url:
        while passed < count:
            with open_answer(url, request, "none") as read:
                passed += sum(batch.num_rows for batch in read.arrow_batches())
            if not before and passed >= count / 20:
                before = _most_mib()
    return {"flat_messages": passed, "flat_grew_mib": _most_mib() - before}


def _most_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_imports() -> dict[str, float]:
    words = {"import_ms": ["-c", "import logstore"], "help_ms": ["-m", "logstore", "--help"]}
    return {name: 1_000 * min(_run(arguments) for _ in range(3)) for name, arguments in words.items()}


def _run(arguments: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextmanager
def stand_in(answer: bytes) -> Iterator[str]:
    """URL of a process that gives this answer to every query."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Giver", (Handler,), {"answer": answer}))
    child = _FORK.Process(target=server.serve_forever, daemon=True)
    child.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        child.terminate()
        child.join()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """Says who it is, and gives its answer to whatever else is asked."""

    protocol_version = "HTTP/1.1"
    answer = b""

    def do_GET(self) -> None:
        head = json.dumps({"broker": f"0x{_BROKER.address.hex()}", "newest": None}).encode()
        body = head if self.path == "/v1/head" else self.answer
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):
            for at in range(0, len(body), PIECE_BYTES):
                self.wfile.write(body[at : at + PIECE_BYTES])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def open_answer(url: str, request: Request, verify: str) -> QueryAnswer:
    http = BoundedClient(allow_nets=EVERYWHERE, floor_after_s=900.0)
    place = Place(check_url(url, allow_http=True, allow_nets=EVERYWHERE))
    brokers = Brokers([place], http, _CONTEXT)
    return QueryAnswer(request, parse_verify_level(verify), _NETWORK, brokers, _no_reports, close=http.close)


def _no_reports() -> Any:
    raise AssertionError("the contract is asked only for proofs")
