"""From the bytes of a broker's answer to a sorted, deduplicated, checked, hashed segment on disk: messages per second.

In turn with (a) a plain C loop that only hashes and recovers the same signatures through the same libsecp256k1
(compiled here; needs a C compiler), (b) Node doing parse, check as Streamr's client does, sort, JSON, SHA-256 and
gzip, of the items that the Node validator before this one stored, (c) the same without checking, and once more with
every field stored once, which it did not do (needs Node and npm, which fetches the packages ``secp256k1`` and
``sha3``). One process, one core, CPU time. ``--cores`` also times two processes side by side, ``--memory`` a window of
two million messages in a fresh process.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import coincurve._libsecp256k1

from benchmarks.corpus import make_lines
from benchmarks.runner import Case, Result, print_table, ratio, run_in_turn
from validator.net.brokers.pages import read_lines
from validator.protocol.codec.legacy_array import read_legacy_array
from validator.protocol.codec.message import record_of_read
from validator.protocol.codec.payload import signature_payload
from validator.protocol.consensus.proposal import Span
from validator.protocol.model import Address, Record, StreamPart
from validator.steps import admission
from validator.steps.window_buffer import WindowBuffer
from validator.store.segments import SegmentStore

OK, USAGE = 0, 2
SLICE = 25_000
"""What all partitions answer for seven and a half minutes of the corpus' hour.

The peer bundles longer spans than that; in slices of 5 000 it is a fifth quicker, and this side as quick as here.
"""
PIECE = 64 << 10
"""A body arrives in such pieces."""
GOALS = {
    "ours against the C loop": 0.76,
    "ours against Node": 3.0,
    "unchecked against Node unchecked": 3.3,
    "two processes against one": 1.8,
}
WINDOW = 2_000_000
WINDOW_MIB = 1024
BROKER = Address(b"\x01" * 20)
END = b'\n{"hasNext":false,"type":"metadata"}'
NODE = Path(__file__).with_name("node")

Slice = dict[StreamPart, bytes]
"""The lines that a broker answers for each partition."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks messages", description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000, help="size of the corpus (default 200000)")
    parser.add_argument("--slice", type=int, default=SLICE, help=f"messages handled at a time (default {SLICE})")
    parser.add_argument("--seed", type=int, default=7, help="seed of the corpus (default 7)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--cores", action="store_true", help="also time two processes against one")
    parser.add_argument("--memory", action="store_true", help=f"also collect a window of {WINDOW:,} messages")
    options = parser.parse_args(arguments)
    if not 1 <= options.slice <= options.messages:
        parser.error("--messages: at least one slice, of at least one message")
    slices = load_slices(options.messages, options.slice, options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps: dict[str, float] = {}
        cases: dict[str, Case] = {
            "ours": lambda number: run_ours(slices[number], folder / "ours", steps),
            "ours, unchecked": lambda number: run_unchecked(slices[number], folder / "unchecked"),
        }
        c_case = make_c_case(slices, folder)
        if c_case is not None:
            cases["C loop"] = c_case
        with node_cases(slices, folder) as with_node:
            results = run_in_turn(cases | with_node, rounds=len(slices), items=options.slice)
        report(results, steps, len(slices) * options.slice)
        ratios = ratios_of(results)
        if options.cores:
            ratios |= time_two(cases, min(len(slices), 8))
    figures: dict[str, object] = {
        name: {"us_best": result.best_us, "us_median": result.median_us} for name, result in results.items()
    }
    figures["ratios"] = ratios
    for name, value in ratios.items():
        goal = f"  goal {GOALS[name]}" if name in GOALS else ""
        print(f"{name:34} {value:5.2f}{goal}")
    if options.memory:
        memory = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", str(WINDOW)], check=True, capture_output=True, text=True
        )
        figures["memory"] = json.loads(memory.stdout)
        print(f"{WINDOW:,} messages: {memory.stdout.strip()}  goal below {WINDOW_MIB} MiB")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return OK


def load_slices(count: int, size: int, seed: int) -> list[Slice]:
    """The corpus, made once and kept in the folder for temporary files."""
    path = Path(tempfile.gettempdir()) / f"logstore-benchmark-{os.getuid()}-{count}-{seed}.ndjson"
    if path.exists():
        lines = path.read_bytes().split(b"\n")
    else:
        lines = make_lines(count, seed)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(b"\n".join(lines))
        part.replace(path)
    slices = []
    for at in range(0, len(lines) - size + 1, size):
        answers: dict[StreamPart, list[bytes]] = {}
        for line in lines[at : at + size]:
            answers.setdefault(read_legacy_array(line).stream_part, []).append(line)
        slices.append({part: b"\n".join(members) for part, members in answers.items()})
    return slices


def run_ours(answers: Slice, folder: Path, steps: dict[str, float] | None = None) -> float:
    """CPU seconds of the whole way of one page through what the validator runs. Adds each step's to ``steps``."""
    gc.collect()
    began = at = time.process_time()

    def done(step: str) -> None:
        nonlocal at
        now = time.process_time()
        if steps is not None:
            steps[step] = steps.get(step, 0.0) + now - at
        at = now

    with WindowBuffer(folder / "scratch", answers) as buffer:
        for part, lines in answers.items():
            body = lines + END
            pieces = (body[at : at + PIECE] for at in range(0, len(body), PIECE))
            read_lines(pieces, partial(take, buffer, part))
        done("split, exact duplicates")
        buffer.check(Span(0, 1 << 52), lambda *_: True, lambda _: False, message_limit=1 << 20)
        done("parse, check, encode, hash, sort")
        SegmentStore(str(folder / "sets")).save_ordered(buffer.merge())
        done("variants, roots, compress, write")
    return at - began


def take(buffer: WindowBuffer, part: StreamPart, lines: Sequence[bytes], form: str) -> None:
    buffer.ingest(BROKER, part, 0, lines, form)


def run_unchecked(answers: Slice, folder: Path) -> float:
    """The same without looking at signatures."""
    with patch.object(admission, "check_recovered", lambda signed: (True for _ in signed)):
        return run_ours(answers, folder)


def make_c_case(slices: Sequence[Slice], folder: Path) -> Case | None:
    """Compile the loop, give it the curve library's own functions and each slice's payloads in memory."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        print("skipped: the C loop, as there is no C compiler")
        return None
    program = folder / "recover.so"
    source = Path(__file__).with_name("recover.c")
    options = ["-O3", "-march=native", "-shared", "-fPIC", "-o", str(program)]
    subprocess.run([compiler, *options, str(source)], check=True)
    recover_all = ctypes.CDLL(str(program)).recover_all
    recover_all.restype = ctypes.c_long
    recover_all.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_char_p, ctypes.c_size_t]
    curve = ctypes.CDLL(coincurve._libsecp256k1.__file__)
    functions = [
        ctypes.c_void_p.in_dll(curve, "secp256k1_context_static").value,
        ctypes.cast(curve.secp256k1_ecdsa_recoverable_signature_parse_compact, ctypes.c_void_p).value,
        ctypes.cast(curve.secp256k1_ecdsa_recover, ctypes.c_void_p).value,
        ctypes.cast(curve.secp256k1_ec_pubkey_serialize, ctypes.c_void_p).value,
    ]
    prepared = []
    for answers in slices:
        lines = dict.fromkeys(b"\n".join(answers.values()).split(b"\n"))
        records = [record_of_read(read_legacy_array(line)) for line in lines]
        prepared.append((len(records), b"".join(map(for_c, records))))

    def run(number: int) -> float:
        count, data = prepared[number]
        began = time.process_time()
        valid = recover_all(*functions, data, len(data))
        taken = time.process_time() - began
        if valid != count:
            raise SystemExit(f"the C loop finds {valid} of {count} signatures valid")
        return taken

    return run


def for_c(record: Record) -> bytes:
    payload = signature_payload(record.message)
    size = len(payload).to_bytes(4, sys.byteorder)
    return size + payload + record.message.signature + record.message.publisher_id


@contextmanager
def node_cases(slices: Sequence[Slice], folder: Path) -> Iterator[dict[str, Case]]:
    """Cases that a Node process does; none, with a word why, where it or its packages are missing."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        print(f"skipped: Node, as there is no {'node' if node is None else 'npm'}")
        yield {}
        return
    program = Path(tempfile.gettempdir()) / f"logstore-benchmark-{os.getuid()}-node"
    program.mkdir(exist_ok=True)
    for source in NODE.iterdir():
        shutil.copy(source, program)
    install = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(program)]
    if not (program / "node_modules" / "sha3").exists() and subprocess.run(install, capture_output=True).returncode:
        print("skipped: Node, as npm could not install secp256k1 and sha3")
        yield {}
        return
    for number, answers in enumerate(slices):
        (folder / f"page-{number}").write_bytes(b"\n".join(answers.values()))
    command = [node, str(program / "slices.js"), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        requests, replies = child.stdin, child.stdout

        def run(number: int, mode: str) -> float:
            requests.write(f"{number} {mode}\n")
            requests.flush()
            microseconds, kept = replies.readline().split()
            lines = 1 + sum(answer.count(b"\n") for answer in slices[number].values())
            if int(kept) < lines * 0.9:
                raise SystemExit(f"Node keeps {kept} of about {lines} messages")
            return int(microseconds) / 1e6

        for number in range(min(2, len(slices))):  # let it compile before it counts
            run(number, "check")
        yield {
            "Node": lambda number: run(number, "check"),
            "Node, unchecked": lambda number: run(number, "plain"),
            "Node, unchecked, lean": lambda number: run(number, "lean"),
        }
        requests.close()


def time_two(cases: Mapping[str, Case], rounds: int) -> dict[str, float]:
    """How much more two processes do than one, in wall time, in the same minute as the C loop does."""
    context = multiprocessing.get_context("fork")

    def seconds(case: Case, processes: int) -> float:
        workers = [context.Process(target=lambda: [case(n) for n in range(rounds)]) for _ in range(processes)]
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return time.perf_counter() - began

    names = {"C loop": "two C loops against one", "ours": "two processes against one"}
    return {names[name]: 2 * seconds(case, 1) / seconds(case, 2) for name, case in cases.items() if name in names}


def ratios_of(results: Mapping[str, Result]) -> dict[str, float]:
    pairs = {
        "ours against the C loop": ("ours", "C loop"),
        "ours against Node": ("ours", "Node"),
        "unchecked against Node unchecked": ("ours, unchecked", "Node, unchecked"),
        "unchecked against lean Node": ("ours, unchecked", "Node, unchecked, lean"),
    }
    return {name: ratio(results[a], results[b]) for name, (a, b) in pairs.items() if a in results and b in results}


def report(results: dict[str, Result], steps: dict[str, float], items: int) -> None:
    print_table(list(results.values()), results.get("C loop", results["ours"]))
    total = sum(steps.values())
    print("\nours by step, us per message")
    for name, seconds in steps.items():
        print(f"  {name:30} {seconds / items * 1e6:7.2f}  {seconds / total:5.1%}")
