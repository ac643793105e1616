"""A key speaks from one database only, and what was restored or lost begins anew."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.builders import a_key
from validator.ports.stored import InstanceChange
from validator.protocol.codec.statement import SigningContext, sign_statement
from validator.protocol.errors import ConfigError
from validator.protocol.model import Address, Block, Digest, InstanceId, InstanceKind, Statement, StatementKind
from validator.protocol.parameters import Contracts, Network, ParameterSet
from validator.store.database import Database
from validator.store.facade import SqlStore
from validator.store.identity import create_identity, read_id, renew_identity, require_identity
from validator.store.meta import save_retired
from validator.store.statements import journal_vote

HEAD = Block(7, Digest(b"\x07" * 32), 1_700_000_000)
LATER = Block(99, Digest(b"\x63" * 32), 1_700_001_000)
CONTRACTS = Contracts(*(Address(bytes([0xC0 + i]) * 20) for i in range(6)))
PARAMETERS = ParameterSet(first_epoch=0, epoch_windows=10)
NETWORK = Network("n", 137, 1, Digest(b"\x01" * 32), CONTRACTS, 1_700_000_000_000, (PARAMETERS,))
NOW_MS = 1_700_000_000_500


def a_vote(number: int = 0) -> Statement:
    key = a_key(5)
    instance = InstanceId(InstanceKind.WINDOW, NETWORK.genesis_ms + number)
    unsigned = Statement(StatementKind.PREVOTE, Digest(b"\x0c" * 32), instance, 0, Digest(b"\x0d" * 32), key.address)
    return sign_statement(unsigned, key, SigningContext(137, CONTRACTS.report_manager))


@pytest.fixture
def id_file(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "voting.database"


def test_a_new_database_notes_the_block_of_its_creation_and_is_named_beside_the_key(
    database: Database, id_file: Path
) -> None:
    made = create_identity(database, id_file, NETWORK, HEAD, NOW_MS)
    assert (made.created_block_number, made.created_block_s, made.chain_id) == (7, HEAD.timestamp_s, 137)
    assert read_id(id_file) == made.database_id
    assert require_identity(database, id_file, NETWORK) == made


def test_creating_again_changes_nothing_and_needs_no_block(database: Database, id_file: Path) -> None:
    made = create_identity(database, id_file, NETWORK, HEAD, NOW_MS)
    assert create_identity(database, id_file, NETWORK, None, NOW_MS + 9) == made


def test_an_id_file_that_a_crash_left_out_is_written_by_the_next_try(database: Database, id_file: Path) -> None:
    made = create_identity(database, id_file, NETWORK, HEAD, NOW_MS)
    id_file.unlink()
    assert create_identity(database, id_file, NETWORK, None, NOW_MS) == made
    assert read_id(id_file) == made.database_id


def test_a_database_with_votes_and_no_id_file_is_refused(database: Database, id_file: Path) -> None:
    create_identity(database, id_file, NETWORK, HEAD, NOW_MS)
    with database.write() as connection:
        journal_vote(connection, a_vote(), NOW_MS)
    id_file.unlink()
    with pytest.raises(ConfigError, match="is missing though this database holds votes"):
        create_identity(database, id_file, NETWORK, None, NOW_MS)


def test_an_empty_database_does_not_take_the_place_of_the_one_that_the_key_belongs_to(
    database: Database, id_file: Path
) -> None:
    id_file.parent.mkdir()
    id_file.write_text("0x" + "ab" * 32 + "\n")
    with pytest.raises(ConfigError, match="names another database, this one is empty"):
        create_identity(database, id_file, NETWORK, HEAD, NOW_MS)
    renewed = renew_identity(database, id_file, NETWORK, LATER, NOW_MS)
    assert require_identity(database, id_file, NETWORK) == renewed
    assert renewed.created_block_s == LATER.timestamp_s


def test_a_restored_backup_gets_another_id_and_begins_at_the_newest_block(database: Database, id_file: Path) -> None:
    made = create_identity(database, id_file, NETWORK, HEAD, NOW_MS)
    renewed = renew_identity(database, id_file, NETWORK, LATER, NOW_MS)
    assert renewed.database_id != made.database_id
    assert renewed.created_block_number == LATER.number
    assert read_id(id_file) == renewed.database_id


def test_no_process_starts_with_a_database_that_was_never_initialised(database: Database, id_file: Path) -> None:
    with pytest.raises(ConfigError, match="never initialised; run logstore-validator init"):
        require_identity(database, id_file, NETWORK)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"chain_id": 1}, "chain_id"),
        ({"deployment_parent_hash": Digest(b"\x02" * 32)}, "parent_hash"),
        ({"contracts": dataclasses.replace(CONTRACTS, token=Address(b"\x01" * 20))}, "contracts"),
    ],
)
def test_a_database_of_another_network_is_refused_by_the_field_that_differs(
    database: Database, id_file: Path, change: dict[str, Any], field: str
) -> None:
    create_identity(database, id_file, NETWORK, HEAD, NOW_MS)
    other = dataclasses.replace(NETWORK, **change)
    reason = rf"another network \({field} differs\)"
    with pytest.raises(ConfigError, match=reason):
        require_identity(database, id_file, other)
    with pytest.raises(ConfigError, match=reason):
        create_identity(database, id_file, other, None, NOW_MS)
    with pytest.raises(ConfigError, match=reason):
        renew_identity(database, id_file, other, LATER, NOW_MS)


@pytest.mark.parametrize("content", ["", "0x12", "no hex", "0x" + "ab" * 32])
def test_an_id_file_that_does_not_name_this_database_is_refused(
    database: Database, id_file: Path, content: str
) -> None:
    create_identity(database, id_file, NETWORK, HEAD, NOW_MS)
    id_file.write_text(content)
    with pytest.raises(ConfigError, match="LOGSTORE_DATABASE_ID_FILE"):
        require_identity(database, id_file, NETWORK)


def test_an_id_file_that_cannot_be_written_is_one_clear_error(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="LOGSTORE_DATABASE_ID_FILE: cannot write"):
        create_identity(database, tmp_path / "file" / "voting.database", NETWORK, HEAD, NOW_MS)


def test_a_retired_database_neither_starts_nor_begins_anew_nor_journals_a_vote(store: SqlStore, id_file: Path) -> None:
    create_identity(store.database, id_file, NETWORK, HEAD, NOW_MS)
    vote = a_vote()
    store.instances.create_instance(vote.instance, vote.config_digest, NOW_MS)
    with store.database.write() as connection:
        save_retired(connection, NOW_MS)
    with pytest.raises(ConfigError, match="retired"):
        require_identity(store.database, id_file, NETWORK)
    with pytest.raises(ConfigError, match="retired"):
        renew_identity(store.database, id_file, NETWORK, LATER, NOW_MS)
    stored = store.instances.load_instance(vote.instance)
    assert stored is not None
    with pytest.raises(ConfigError, match="retired"):
        store.instances.save_instance(stored, InstanceChange(b"", None, said=[vote], step="prevote"), NOW_MS)
    again = store.instances.load_instance(vote.instance)
    assert again is not None
    assert (again.own, again.version) == ((), 0)
