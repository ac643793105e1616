"""From the bytes of a broker's answer to a sorted, checked, hashed segment on disk: messages per second.

In turn with a plain C loop that only hashes and recovers the same signatures through the same libsecp256k1
(compiled here; needs a C compiler). One process, one core, CPU time. The steps of ours are also timed one by one.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import coincurve._libsecp256k1
import zstandard

from benchmarks.corpus import make_lines
from benchmarks.runner import Result, print_table, ratio, run_in_turn
from validator.codec.legacy_array import read_legacy_array
from validator.codec.message import record_of_read, signature_payload
from validator.codec.signatures import VALID, verify_batch
from validator.merkle import compute_root
from validator.model import Record

OK, FAILED, USAGE = 0, 1, 2
SLICE = 5000
"""Messages per slice: one page of a broker."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks messages", description=__doc__)
    parser.add_argument("--messages", type=int, default=40_000, help="size of the corpus (default 40000)")
    parser.add_argument("--seed", type=int, default=7, help="seed of the corpus (default 7)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args(arguments)
    if options.messages < SLICE:
        parser.error(f"--messages: at least {SLICE}, one slice")
    compiler = shutil.which("cc") or shutil.which("gcc")
    lines = make_lines(options.messages, options.seed)
    pages = [b"\n".join(lines[at : at + SLICE]) for at in range(0, len(lines) - SLICE + 1, SLICE)]
    with tempfile.TemporaryDirectory() as folder:
        steps: dict[str, float] = {}
        cases = {"ours": lambda number: run_ours(pages[number], Path(folder) / "segment", steps)}
        if compiler is None:
            print("skipped: the C loop, as there is no C compiler")
        else:
            cases["C loop"] = make_c_case(compiler, pages, Path(folder))
        results = run_in_turn(cases, rounds=len(pages), items=SLICE)
    report(results, steps, len(pages) * SLICE)
    if options.json:
        options.json.write_text(json.dumps(figures(results), indent=1) + "\n")
    return OK


def run_ours(page: bytes, path: Path, steps: dict[str, float] | None = None) -> float:
    """CPU seconds of the whole way of one page. Adds each step's to ``steps``."""
    gc.collect()
    began = at = time.process_time()

    def done(step: str) -> None:
        nonlocal at
        now = time.process_time()
        if steps is not None:
            steps[step] = steps.get(step, 0.0) + now - at
        at = now

    lines = list(dict.fromkeys(page.split(b"\n")))
    done("split, exact duplicates")
    messages = list(map(read_legacy_array, lines))
    done("parse, check")
    records = list(map(record_of_read, messages))
    done("payload, digest, encode, leaf")
    records = [r for r, verdict in zip(records, verify_batch(records), strict=True) if verdict is VALID]
    done("recover")
    records = sorted({r.identity: r for r in records}.values(), key=lambda r: r.order)
    done("sort, duplicates")
    for _, part in groupby(records, key=lambda r: r.message.stream_part):
        compute_root([r.leaf for r in part])
    done("roots")
    segment = zstandard.ZstdCompressor(level=1).compress(b"".join([r.canonical for r in records]))
    done("compress")
    path.write_bytes(segment)
    done("write")
    return at - began


def make_c_case(compiler: str, pages: Sequence[bytes], folder: Path) -> Callable[[int], float]:
    """Compile the loop, give it the curve library's own functions and each slice's payloads in memory."""
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
    slices = []
    for page in pages:
        records = [record_of_read(read_legacy_array(line)) for line in dict.fromkeys(page.split(b"\n"))]
        slices.append((len(records), b"".join(map(for_c, records))))

    def run(number: int) -> float:
        count, data = slices[number]
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


def report(results: dict[str, Result], steps: dict[str, float], items: int) -> None:
    print_table(list(results.values()), results.get("C loop", results["ours"]))
    total = sum(steps.values())
    print("\nours by step, us per message")
    for name, seconds in steps.items():
        print(f"  {name:30} {seconds / items * 1e6:7.2f}  {seconds / total:5.1%}")


def figures(results: dict[str, Result]) -> dict[str, object]:
    data: dict[str, object] = {
        name: {"us_best": result.best_us, "us_median": result.median_us} for name, result in results.items()
    }
    if "C loop" in results:
        data["ours_against_c"] = ratio(results["ours"], results["C loop"])
    return data
