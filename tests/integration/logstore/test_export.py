"""logstore export: the same messages in every format, in one order over all bundles."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.builders import GENESIS_MS
from tests.integration.logstore.conftest import Run
from tests.paths import ROOT
from tests.stored_network import LATE, STREAMS, WINDOWS, StoredNetwork
from validator.protocol.codec import cbor
from validator.protocol.model import Record

SPAN = ("--from", str(GENESIS_MS), "--to", str(GENESIS_MS + 90_000))
RECORDS: list[Record] = sorted(
    [record for windows in WINDOWS for window in windows for record in window] + [r for late in LATE for r in late],
    key=lambda record: record.order,
)


def export(run: Run, *more: str | Path) -> bytes:
    ran = run("export", *SPAN, "--output", "out", "--json", *more)
    assert ran.status == 0, ran.err
    return Path(ran.document["file"]).read_bytes()


def test_lines_of_json_are_the_messages_in_canonical_order_over_all_bundles(run: Run) -> None:
    lines = [json.loads(line) for line in export(run).splitlines()]
    assert [(line["stream_id"], line["timestamp_ms"], line["sequence_number"]) for line in lines] == [
        (r.message.stream_id, r.message.timestamp_ms, r.message.sequence_number) for r in RECORDS
    ]
    assert [line["content"] for line in lines] == [r.message.content.decode() for r in RECORDS]
    assert [line["signature"] for line in lines] == [f"0x{r.message.signature.hex()}" for r in RECORDS]


def test_raw_is_what_leaves_commit_to(run: Run) -> None:
    data = export(run, "--format", "raw")
    assert cbor.split_sequence(data, max_items=100) == [r.canonical for r in RECORDS]


def test_arrow_is_a_stream_with_types(run: Run) -> None:
    table = pa.ipc.open_stream(io.BytesIO(export(run, "--format", "arrow"))).read_all()
    assert table.num_rows == len(RECORDS)
    assert table.schema.field("timestamp").type == pa.timestamp("ms", tz="UTC")
    assert table.column("content").to_pylist() == [r.message.content.decode() for r in RECORDS]
    assert table.column("content_bytes").null_count == len(RECORDS)


def test_a_cell_of_csv_that_a_spreadsheet_would_run_gets_a_quote(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(export(run, "--format", "csv").decode(), newline="")))
    contents = {int(row["sequence_number"]): row["content"] for row in rows}
    assert contents[51] == "'=1+1"
    assert contents[3] == '{"number":3,"unit":"K"}'
    assert len(rows) == len(RECORDS)


def test_a_stream_and_a_partition_are_chosen(run: Run) -> None:
    def sequences(*more: str) -> list[int]:
        return [json.loads(line)["sequence_number"] for line in export(run, *more).splitlines()]

    assert sequences("--stream", STREAMS[1]) == [30, 32, 50, 51]
    assert sequences("--stream", STREAMS[0], "--partition", "1") == [1, 3, 5, 7, 9]
    assert sequences("--stream", "0xnobody/nothing") == []


def test_without_a_file_the_messages_go_to_standard_output(stored: StoredNetwork, tmp_path: Path) -> None:
    """As a program of its own: what a pipe gets is the messages and nothing else."""
    words = [sys.executable, "-m", "logstore.cli", "export", *SPAN, "--network", str(stored.network_file)]
    done = subprocess.run(
        [*words, "--cache", str(tmp_path), "--format", "raw"], capture_output=True, check=True, cwd=ROOT
    )
    assert done.stdout == b"".join(r.canonical for r in RECORDS)
    assert done.stderr == b""


def test_a_file_that_cannot_be_written_leaves_nothing_behind(run: Run, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    ran = run("export", *SPAN, "--output", "folder")
    assert ran.status == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "folder"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--format", "xml"], "--format"),
        (["--partition", "-1"], "--partition"),
        (["--verify", "some"], "--verify"),
    ],
)
def test_wrong_words_are_status_2_and_one_line(run: Run, words: list[str], named: str) -> None:
    ran = run("export", *words)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert named in ran.err


def test_a_document_and_the_messages_do_not_share_standard_output(run: Run) -> None:
    ran = run("export", *SPAN, "--json")
    assert (ran.status, ran.document["verdict"]) == (2, "usage")
    assert "--output" in ran.err


def test_what_a_gateway_does_not_have_is_status_3(stored: StoredNetwork, run: Run) -> None:
    assert run("export", *SPAN, "--gateway", "http://127.0.0.1:1", "--output", "out").status == 3
    assert not Path("out").exists()
