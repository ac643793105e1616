"""Files of bundles are written from the sets that are held: the same by a child as here, or nothing at all."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import GENESIS_MS, a_record, some_records
from tests.bundle_builder import a_manifest, rows_of
from tests.fakes.small_network import Writer
from tests.fakes.world import Clock
from tests.paths import ROOT
from validator import child
from validator.ports.storage import BundleWriter
from validator.protocol.codec.bundle_file import verify_bundle_file, write_bundle
from validator.protocol.codec.outcome import set_root
from validator.protocol.errors import InvariantError, TransientError
from validator.protocol.model import Manifest
from validator.store.bundle_writer import ChildWriter
from validator.store.database import migrate, open_database
from validator.store.facade import SqlStore
from validator.store.segments import SegmentStore

FIRST, SECOND = some_records(5), [a_record(timestamp_ms=GENESIS_MS + 4_000 + i) for i in range(3)]


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return a_manifest([FIRST, SECOND])


@pytest.fixture
def store(tmp_path: Path, manifest: Manifest) -> Iterator[SqlStore]:
    url = f"sqlite:///{tmp_path}/validator.sqlite"
    migrate(url)
    database = open_database(url)
    store = SqlStore(database, SegmentStore(str(tmp_path / "sets")), Clock())
    for records in (FIRST, SECOND, []):
        certified = [*manifest.windows, manifest.late][(FIRST, SECOND, []).index(records)]
        store.sets.save_set(set_root(certified.outcome.entries), records)
    yield store
    database.close()


@pytest.fixture(params=["here", "in a child"])
def writer(request: pytest.FixtureRequest, store: SqlStore, tmp_path: Path) -> BundleWriter:
    return Writer(store.sets) if request.param == "here" else ChildWriter(store.sets, str(tmp_path / "sets"))


def test_the_file_is_that_of_its_records(writer: BundleWriter, manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "bundles" / "0.parquet"
    written = writer.write(path, manifest)
    other = write_bundle(tmp_path / "other", manifest, rows_of(manifest, [FIRST, SECOND]))
    assert path.read_bytes() == (tmp_path / "other").read_bytes()
    assert written == replace(other, path=path)
    assert verify_bundle_file(path).rows == 8


def test_a_set_whose_file_is_damaged_is_noted_and_the_bundle_waits(
    writer: BundleWriter, store: SqlStore, manifest: Manifest, tmp_path: Path
) -> None:
    root = set_root(manifest.windows[1].outcome.entries)
    held = Path(SegmentStore(str(tmp_path / "sets")).path(root))
    held.write_bytes(held.read_bytes()[:-40])
    with pytest.raises(TransientError):
        writer.write(tmp_path / "bundle", manifest)
    assert [damaged.set_root for damaged in store.sets.damaged(10)] == [root]
    assert not store.sets.has_set(root)
    assert not list(tmp_path.glob("bundle*"))


def test_sets_that_do_not_give_the_manifests_entries_make_no_file(
    writer: BundleWriter, manifest: Manifest, tmp_path: Path
) -> None:
    first, second = (certified.outcome for certified in manifest.windows)
    exchanged = [replace(first, entries=second.entries), replace(second, entries=first.entries)]
    windows = tuple(replace(c, outcome=outcome) for c, outcome in zip(manifest.windows, exchanged, strict=True))
    with pytest.raises(InvariantError):
        writer.write(tmp_path / "bundle", replace(manifest, windows=windows))
    assert not list(tmp_path.glob("bundle*"))


def test_a_disk_that_refuses_is_named_and_tried_again(writer: BundleWriter, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "bundles").write_text("a file, where a folder is wanted")
    with pytest.raises(TransientError, match=r"bundles/0\.parquet: cannot write: "):
        writer.write(tmp_path / "bundles" / "0.parquet", manifest)


def test_a_folder_that_is_taken_away_is_no_verdict_on_the_sets(
    store: SqlStore, manifest: Manifest, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "sets")
    with pytest.raises(TransientError):
        ChildWriter(store.sets, str(tmp_path / "sets")).write(tmp_path / "bundle", manifest)


def test_a_child_that_was_killed_leaves_the_bundle_to_the_next(
    store: SqlStore, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("validator.store.bundle_writer._PROGRAM", "tests.fakes.dying_program")
    with pytest.raises(TransientError, match="bundle: its writer ended by signal 9"):
        ChildWriter(store.sets, str(tmp_path / "sets")).write(tmp_path / "bundle", manifest)


def test_who_lives_long_imports_no_library_of_bundle_files() -> None:
    code = "import sys, validator.wiring, validator.server.run; print([*sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "'validator.wiring'" in done.stdout
    assert "'pyarrow'" not in done.stdout


def test_a_child_is_told_of_an_object_store_and_of_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGSTORE_VOTING_KEY", "0x1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "named")
    told = child.foreign_environment()
    assert told["AWS_ACCESS_KEY_ID"] == "named"
    assert not [name for name in told if name.startswith("LOGSTORE_")]
