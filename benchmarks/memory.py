"""Peak memory, and time, of each step in the life of one large window: ``python -m benchmarks memory 2000000``.

Two brokers serve the same messages, in pages: a few thousand signed ones again and again, each time later. So their
signatures recover to strangers; they are checked like any others, but the verdict is not asked. Four members: of every
20 messages one is unknown to us and another one to the leader, so the two sets differ by 5 % each way, and what is
proposed holds all. Everything else is what a validator's steps do, on a database and files of its own:

    collect   pull from both brokers, check, deduplicate, save the set
    observe   the two observed sets, cut from what was collected; encode what is signed
    fetch     the leader compares its set with ours and fetches what it lacks
    propose   the leader unites both and saves what it proposes
    obtain    we compare what is proposed with our set and fetch what we lack
    judge     the proposal, valid and acceptable; processor time per message that both hold, differences included
    decide    remember identities, look for what was left out
    seal      write the bundle's file
    verify    read it back
    report    receipts, ledger, report

Each step runs in an interpreter of its own, and hands on files alone: so the figure is the step's own peak (its highest
resident size, interpreter and libraries included), not that of a step before it. ``--json`` writes the figures to a
file. Status 1: a step took more than a GiB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.apart import Figures, run_apart
from benchmarks.certified import BLOCK, CONTRACTS, KEYS, make_config, make_manifest
from benchmarks.corpus import START_MS, make_lines
from validator.net.brokers.pages import read_lines
from validator.protocol.charges import bundle_receipts
from validator.protocol.codec.bundle_file import verify_bundle_file, write_bundle
from validator.protocol.codec.config import config_digest
from validator.protocol.codec.legacy_array import read_legacy_array
from validator.protocol.codec.manifest import manifest_root
from validator.protocol.codec.message import record_from_canonical
from validator.protocol.codec.outcome import (
    encode_observation,
    observation_digest,
    part_order,
    set_root,
)
from validator.protocol.codec.signatures import check_recovered
from validator.protocol.columns import ID_BYTES, MessageSet, Page, RecordSet, all_pages
from validator.protocol.consensus.proposal import (
    Answer,
    Draft,
    Scope,
    Span,
    Verdict,
    judge_acceptability,
    judge_validity,
)
from validator.protocol.consensus.reconcile import Records, answer
from validator.protocol.consensus.window import Budget
from validator.protocol.joining import lacking, unite_pages
from validator.protocol.model import (
    NIL,
    Address,
    ChainState,
    InstanceId,
    InstanceKind,
    Observation,
    Outcome,
    PartitionEntry,
    Root,
    StorageId,
    StreamPart,
    Window,
)
from validator.protocol.report import Ledger
from validator.protocol.settlement import build_report
from validator.steps import admission
from validator.steps.kept import Kept
from validator.steps.peer_sets import FETCHED, _merged, _put_down
from validator.steps.reconcile import difference, records_of
from validator.steps.spool import Spool
from validator.steps.window_buffer import WindowBuffer
from validator.store.database import migrate, open_database
from validator.store.facade import SqlStore
from validator.store.segments import SegmentStore

PATTERNS = 5000
BROKERS = (Address(b"\x01" * 20), Address(b"\x02" * 20))
END = b'\n{"hasNext":false,"type":"metadata"}'
LIMIT_MIB = 1024
SYSTEM = "0x" + "03" * 20 + "/system"


class Clock:
    def now_ms(self) -> int:
        return START_MS


class Bench:
    """Where everything lies, and what is known of the window."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.count = count
        self.window = Window(START_MS - 1_000, START_MS + (count // PATTERNS + 2) * PATTERNS * 20)
        self.instance = InstanceId(InstanceKind.WINDOW, self.window.start_ms)
        window_ms = self.window.end_ms - self.window.start_ms
        self.config = make_config(window_ms)

    def open(self) -> SqlStore:
        """Opened in each step, which is a process of its own."""
        return SqlStore(
            open_database(f"sqlite:///{self.folder}/validator.db"), SegmentStore(f"{self.folder}/sets"), Clock()
        )

    def scope(self, outcome_parts: Iterable[StreamPart]) -> Scope:
        return Scope(BLOCK, {part: Budget(1 << 40) for part in outcome_parts})


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks memory", description=__doc__)
    parser.add_argument("messages", type=int, nargs="?", default=100_000, help="of the window (default 100000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(arguments)
    found: list[Figures] = []
    known: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.messages)
        print(f"{'step':8}  {'peak MiB':>8}  {'seconds':>8}")
        for step in (collect, observe, fetch, propose, obtain, judge, decide, seal, verify, report):
            figures = run_apart(step, bench, known)
            known |= figures.told
            found.append(figures)
            shown = ", ".join(f"{k} {v}" for k, v in figures.told.items() if isinstance(v, int | float))
            print(f"{figures.step:8}  {figures.peak_mib:8}  {figures.seconds:8.1f}  {shown}", flush=True)
    if options.json:
        steps = {
            f.step: {"peak_mib": f.peak_mib, "seconds": round(f.seconds, 1)}
            | {k: v for k, v in f.told.items() if isinstance(v, int | float)}
            for f in found
        }
        options.json.write_text(json.dumps({"messages": known["messages"], "steps": steps}, indent=2) + "\n")
    return 0 if max(f.peak_mib for f in found) < LIMIT_MIB else 1


# --- the steps --------------------------------------------------------------------------------------


def collect(bench: Bench, _known: dict[str, Any]) -> dict[str, Any]:
    migrate(f"sqlite:///{bench.folder}/validator.db")
    lines = list(dict.fromkeys(make_lines(PATTERNS, 7)))
    parts = [read_legacy_array(line).stream_part for line in lines]
    stamps = [b",%d," % read_legacy_array(line).timestamp_ms for line in lines]
    with (
        patch.object(admission, "check_recovered", lambda signed: (True for _ in check_recovered(signed))),
        WindowBuffer(bench.folder / "scratch", set(parts)) as buffer,
    ):
        for broker in BROKERS:
            for turn, pages in enumerate(_pages(lines, parts, stamps, bench.count)):
                for part, page in pages.items():
                    read_lines([page + END], partial(_ingest, buffer, broker, part, turn * len(lines)))
        buffer.check(Span.of_window(bench.window), lambda *_: True, lambda _: False, message_limit=1 << 20)
        entries = bench.open().sets.save_ordered(buffer.merge())
        counts = len(buffer.serve_counts())
    return {"all": set_root(entries), "messages": sum(e.count for e in entries), "serve_counts_bytes": counts}


def observe(bench: Bench, known: dict[str, Any]) -> dict[str, Any]:
    store = bench.open()
    everything = store.sets.open_set(known["all"])
    told: dict[str, Any] = {"observed": []}
    for number, name in ((0, "ours"), (1, "leaders")):
        entries = store.sets.save_ordered(_without(all_pages(everything), number))
        observation = Observation(
            bench.instance,
            set_root(entries),
            sum(e.count for e in entries),
            sum(e.signed_bytes for e in entries),
            price=100,
            observer=KEYS[number].address,
        )
        encode_observation(observation)
        told[name] = observation.set_root
        told["observed"].append(observation)
    told["observed"].append(Observation(bench.instance, told["ours"], 0, 0, price=100, observer=KEYS[2].address))
    return told


def fetch(bench: Bench, known: dict[str, Any]) -> dict[str, Any]:
    return _obtain(bench, known["leaders"], known["ours"])


def propose(bench: Bench, known: dict[str, Any]) -> dict[str, Any]:
    store = bench.open()
    used = {observation_digest(o): o for o in known["observed"]}
    sets = [(2, store.sets.open_set(known["ours"])), (1, store.sets.open_set(known["leaders"]))]
    parts = sorted({e.stream_part for _, held in sets for e in held.entries}, key=part_order)
    draft = Draft(bench.instance, bench.scope(parts), used, len(KEYS), bench.config.parameters)
    union = [(part, unite_pages([(n, held.pages(part)) for n, held in sets], lambda v: v[0][0])) for part in parts]
    outcome = draft.outcome(store.sets.save_ordered(draft.pages(union)))
    return {"outcome": outcome, "proposed": outcome.count}


def obtain(bench: Bench, known: dict[str, Any]) -> dict[str, Any]:
    return _obtain(bench, known["ours"], set_root(known["outcome"].entries))


def judge(bench: Bench, known: dict[str, Any]) -> dict[str, Any]:
    store = bench.open()
    outcome: Outcome = known["outcome"]
    used = {observation_digest(o): o for o in known["observed"]}
    messages = store.sets.open_set(set_root(outcome.entries))
    own = store.sets.open_set(known["ours"])
    both = sum(e.count for e in own.entries)

    def judged() -> float:
        began = time.process_time()
        verdicts = [
            judge_validity(outcome, used, messages, Span.of_window(bench.window), len(KEYS), bench.config.parameters),
            judge_acceptability(
                outcome,
                messages,
                bench.scope(e.stream_part for e in outcome.entries),
                own,
                worse_variant=lambda *_: False,
                admits=lambda page: bool(page.publishers()),
            ),
        ]
        _require(all(isinstance(v, Verdict) and v.answer is Answer.YES for v in verdicts), f"judged {verdicts}")
        return time.process_time() - began

    return {"us_per_message": round(min(judged() for _ in range(2)) / both * 1e6, 2)}


def decide(bench: Bench, known: dict[str, Any]) -> dict[str, Any]:
    store = bench.open()
    held = store.sets.open_set(set_root(known["outcome"].entries))
    store.archive.save_identities(bench.instance, (row.identity for page in all_pages(held) for row in page.rows()))
    seen = store.sets.open_set(known["ours"])
    pairs = (lacking(seen.pages(e.stream_part), held.pages(e.stream_part)) for e in seen.entries)
    return {"left_out": sum(1 for some in pairs for _, instead in some if instead is None)}


def seal(bench: Bench, known: dict[str, Any]) -> dict[str, Any]:
    store = bench.open()
    manifest = make_manifest(bench.config, known["outcome"])
    records = ((bench.instance, r) for r in store.sets.iterate(set_root(known["outcome"].entries)))
    written = write_bundle(bench.folder / "bundle.parquet", manifest, records)
    return {"file_bytes": written.size}


def verify(bench: Bench, known: dict[str, Any]) -> dict[str, Any]:
    manifest = make_manifest(bench.config, known["outcome"])
    return {"rows": verify_bundle_file(bench.folder / "bundle.parquet", manifest).rows}


def report(bench: Bench, known: dict[str, Any]) -> dict[str, Any]:
    store, manifest = bench.open(), make_manifest(bench.config, known["outcome"])
    outcome: Outcome = known["outcome"]
    parts = [e.stream_part for e in outcome.entries if e.stream_id == SYSTEM]
    records = store.sets.iterate(set_root(outcome.entries), parts)
    receipts = bundle_receipts(records, SYSTEM, bench.config.chain_id, CONTRACTS.query_manager)
    built, _ = build_report(
        Ledger(),
        manifest.header,
        manifest_root(manifest),
        [outcome],
        manifest.late.outcome,
        receipts,
        ChainState(BLOCK, (), (), SYSTEM, {}),
        range(0),
        bench.config.parameters,
        epoch=0,
        config_count=0,
        storage_id=StorageId(NIL),
        uploader=KEYS[0].address,
        system_stream=SYSTEM,
        next_committee=bench.config.committee,
        next_config_digest=config_digest(bench.config),
    )
    return {"receipts": len(receipts), "report": built.number}


# --- what they share --------------------------------------------------------------------------------


class _Member:
    """A peer whose sets lie here too: what a comparison asks of ``Peers``."""

    def __init__(self, store: SqlStore) -> None:
        self._sets = store.sets
        self._compared: Kept[Root, Records] = Kept(1)

    def fetch_entries(self, _member: Address, root: Root) -> Sequence[PartitionEntry]:
        return self._sets.open_set(root).entries

    def reconcile(
        self, _member: Address, root: Root, parts: Sequence[StreamPart], message: bytes, *, strong: bool
    ) -> bytes:
        records = self._compared.get(root)
        if records is None:
            records = self._compared.put(root, records_of(self._sets.open_set(root), parts))
        return answer(records, message, strong=strong)


def _obtain(bench: Bench, own_root: Root, root: Root) -> dict[str, Any]:
    """Compare, fetch and save as ``peer_sets`` does; both sides of the comparison are this process."""
    store = bench.open()
    own: MessageSet = store.sets.open_set(own_root)
    found = difference(_Member(store), KEYS[3].address, root, own)  # type: ignore[arg-type]
    fetched: dict[StreamPart, list[list[Page]]] = defaultdict(list)
    with Spool(bench.folder / "scratch") as spool:
        for start in range(0, len(found.need), FETCHED):
            items = store.sets.load_messages(root, found.need[start : start + FETCHED]) or ()
            batch = RecordSet(map(record_from_canonical, items))
            for entry in batch.entries:
                fetched[entry.stream_part].append([_put_down(page, spool) for page in batch.pages(entry.stream_part)])
        store.sets.save_ordered(_merged(own, set(found.have), fetched), expected=root)
    return {"need": len(found.need), "rounds": found.rounds}


def _without(pages: Iterable[Page], number: int) -> Iterator[Page]:
    """Nineteen of twenty messages; which one is left out is the observer's own."""
    for page in pages:
        kept = page.keep([leaf % 20 != number for leaf in page.leaves[::ID_BYTES]])
        if kept is not None:
            yield kept


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise SystemExit(reason)


def _ingest(
    buffer: WindowBuffer, broker: Address, part: StreamPart, position: int, lines: Sequence[bytes], form: str
) -> None:
    buffer.ingest(broker, part, position, lines, form)


def _pages(
    lines: Sequence[bytes], parts: Sequence[StreamPart], stamps: Sequence[bytes], count: int
) -> Iterator[dict[StreamPart, bytes]]:
    """The same lines by partition again and again, each time later, until there are ``count``."""
    for start in range(0, count, len(lines)):
        shift = start // len(lines) * PATTERNS * 20
        pages: dict[StreamPart, list[bytes]] = defaultdict(list)
        for line, part, stamp in islice(zip(lines, parts, stamps, strict=True), count - start):
            pages[part].append(line.replace(stamp, b",%d," % (int(stamp[1:-1]) + shift), 1))
        yield {part: b"\n".join(members) for part, members in pages.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
