"""What keeps a machine from voting is looked at every few seconds, and said once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.fakes.small_network import an_empty_database
from validator.protocol.model import Block, Digest
from validator.protocol.parameters import Contracts, Network, ParameterSet
from validator.store.database import Database, open_database
from validator.store.identity import create_identity
from validator.store.meta import save_retired
from validator.store.voting_gate import LOOK_MS, VotingBlock

NOWHERE = Contracts(*([bytes(20)] * 6))  # type: ignore[arg-type]
NETWORK = Network("n", 137, 1, Digest(bytes(32)), NOWHERE, 1, (ParameterSet(first_epoch=0, epoch_windows=10),))


@dataclass
class HandClock:
    at_ms: int = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.at_ms


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = open_database(f"sqlite:///{an_empty_database(tmp_path)}")
    create_identity(database, tmp_path / "id", NETWORK, Block(1, Digest(bytes(32)), 1), 1)
    return database


def test_nothing_is_in_the_way_of_a_machine_with_room(database: Database, tmp_path: Path) -> None:
    assert VotingBlock(database, HandClock(), tmp_path, "1")() == ""


def test_a_disk_below_its_floor_stops_voting_and_says_so_once(database: Database, tmp_path: Path) -> None:
    clock = HandClock()
    voting_block = VotingBlock(database, clock, tmp_path, str(1 << 62))
    with capture_logs() as logged:
        for _ in range(3):
            assert "MiB of disk are free, the floor is" in voting_block()
            clock.at_ms += LOOK_MS
    assert [line["event"] for line in logged] == ["voting.stopped"]


def test_a_database_that_is_retired_meanwhile_stops_voting_at_the_next_look(database: Database, tmp_path: Path) -> None:
    clock = HandClock()
    voting_block = VotingBlock(database, clock, tmp_path, "1")
    assert voting_block() == ""
    with database.write() as connection:
        save_retired(connection, 1)
    assert voting_block() == ""
    clock.at_ms += LOOK_MS
    assert "retired" in voting_block()


def test_a_clock_that_jumps_back_does_not_keep_an_old_answer(database: Database, tmp_path: Path) -> None:
    clock = HandClock()
    voting_block = VotingBlock(database, clock, tmp_path, "1")
    assert voting_block() == ""
    with database.write() as connection:
        save_retired(connection, 1)
    clock.at_ms -= 3_600_000
    assert "retired" in voting_block()
