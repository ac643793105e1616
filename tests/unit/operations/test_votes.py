"""Votes leave a database once, for good, and arrive only where nothing newer is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.builders import a_key
from tests.fakes.small_network import an_empty_database
from validator.operations.votes import export_votes, import_votes
from validator.protocol.codec.statement import SigningContext, sign_statement
from validator.protocol.errors import ConfigError, Disagreement, MalformedInput
from validator.protocol.model import Address, Block, Digest, InstanceId, InstanceKind, Statement, StatementKind
from validator.protocol.parameters import Contracts, Network, ParameterSet, format_network
from validator.settings import Settings
from validator.store.identity import create_identity, read_id, require_identity, write_id
from validator.store.statements import journal_vote, load_whole_journal
from validator.wiring import Node, NoTasks

KEY = a_key(5)
CONTRACTS = Contracts(*(Address(bytes([0xC0 + i]) * 20) for i in range(6)))
NETWORK = Network(
    "n", 137, 1, Digest(b"\x01" * 32), CONTRACTS, 1_700_000_000_000, (ParameterSet(first_epoch=0, epoch_windows=10),)
)
MakeNode = Callable[..., Node]


@pytest.fixture
def a_node(tmp_path: Path) -> Any:
    """Makes initialised validators, each on a machine of its own, with the same voting key."""
    made: list[Node] = []

    def make(network: Network = NETWORK, created_s: int = 1_700_000_000) -> Node:
        home = tmp_path / f"machine{len(made)}"
        home.mkdir()
        (home / "network.toml").write_text(format_network(network))
        (home / "voting").write_text(KEY.secret_hex())
        (home / "voting").chmod(0o600)
        settings = Settings(
            network_file=home / "network.toml",
            data_dir=home,
            database_url=f"sqlite:///{home}/validator.sqlite",
            voting_key_file=home / "voting",
            rpc_urls=("http://127.0.0.1:1",),
            gateway_urls=("http://127.0.0.1:1",),
        )
        an_empty_database(home).rename(home / "validator.sqlite")
        node = Node(settings, NoTasks())
        create_identity(node.database, settings.id_file, network, Block(1, Digest(bytes(32)), created_s), 1)
        made.append(node)
        return node

    yield make
    for node in made:
        node.close()


def a_vote(round_: int = 0, kind: StatementKind = StatementKind.PREVOTE, value: int = 1, window: int = 0) -> Statement:
    instance = InstanceId(InstanceKind.WINDOW, NETWORK.genesis_ms + window * 60_000)
    unsigned = Statement(kind, Digest(b"\x0c" * 32), instance, round_, Digest(bytes([value]) * 32), KEY.address)
    return sign_statement(unsigned, KEY, SigningContext(NETWORK.chain_id, CONTRACTS.report_manager))


def journal(node: Node, *votes: Statement) -> None:
    with node.database.write() as connection:
        for vote in votes:
            journal_vote(connection, vote, 1)


def journaled(node: Node) -> list[Statement]:
    with node.database.read() as connection:
        return load_whole_journal(connection)


def test_everything_arrives_and_the_old_database_never_votes_again(a_node: MakeNode, tmp_path: Path) -> None:
    old, new = a_node(), a_node(created_s=1_700_009_000)
    votes = [a_vote(), a_vote(1), a_vote(1, StatementKind.PRECOMMIT), a_vote(window=1)]
    journal(old, *votes)
    assert export_votes(old, tmp_path / "votes.json") == 4
    with pytest.raises(ConfigError, match="retired"):
        require_identity(old.database, old.settings.id_file, NETWORK)
    imported = import_votes(new, tmp_path / "votes.json")
    assert (imported.statements, imported.new) == (4, 4)
    assert journaled(new) == votes
    meta = new.require_identity()
    assert meta.created_block_s == 1_700_000_000, "it may vote where the old one might have"
    assert meta.retired_ms is None


def test_importing_twice_changes_nothing(a_node: MakeNode, tmp_path: Path) -> None:
    old, new = a_node(), a_node()
    journal(old, a_vote(), a_vote(1))
    export_votes(old, tmp_path / "votes.json")
    import_votes(new, tmp_path / "votes.json")
    assert import_votes(new, tmp_path / "votes.json").new == 0
    assert journaled(new) == [a_vote(), a_vote(1)]


def test_an_export_that_was_lost_can_be_made_again(a_node: MakeNode, tmp_path: Path) -> None:
    old = a_node()
    journal(old, a_vote())
    export_votes(old, tmp_path / "first.json")
    export_votes(old, tmp_path / "second.json")
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()
    assert (tmp_path / "first.json").stat().st_mode & 0o077 == 0


def test_no_file_is_overwritten_and_then_nothing_is_retired(a_node: MakeNode, tmp_path: Path) -> None:
    old = a_node()
    (tmp_path / "votes.json").write_text("mine")
    with pytest.raises(ConfigError, match="exists; name a new file"):
        export_votes(old, tmp_path / "votes.json")
    assert old.require_identity().retired_ms is None


@pytest.mark.parametrize("newer", [a_vote(2), a_vote(window=7), a_vote(0, value=9)])
def test_a_file_that_is_older_than_the_journal_is_refused_whole(
    a_node: MakeNode, tmp_path: Path, newer: Statement
) -> None:
    old, new = a_node(), a_node()
    journal(old, a_vote(), a_vote(window=1))
    journal(new, newer)
    export_votes(old, tmp_path / "votes.json")
    with pytest.raises(Disagreement, match="older than this database"):
        import_votes(new, tmp_path / "votes.json")
    assert journaled(new) == [newer]


def test_a_journal_that_was_pruned_there_and_not_here_is_not_newer(a_node: MakeNode, tmp_path: Path) -> None:
    old, new = a_node(), a_node()
    journal(old, a_vote(3, StatementKind.PRECOMMIT))
    journal(new, a_vote(1), a_vote(3, StatementKind.PREVOTE))
    export_votes(old, tmp_path / "votes.json")
    assert import_votes(new, tmp_path / "votes.json").new == 1


def change(path: Path, edit: Callable[[Any], object]) -> Path:
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (lambda d: d["metadata"].update(version=2), "votes.metadata"),
        (lambda d: d["metadata"].update(format="eip-3076"), "votes.metadata"),
        (lambda d: d["metadata"].update(more=1), "votes"),
        (lambda d: d["metadata"].update(config_count=-1), "votes"),
        (lambda d: d["metadata"]["network"].update(chain_id=1), "votes.network"),
        (lambda d: d["metadata"]["network"].update(parent_hash="0x" + "02" * 32), "votes.network"),
        (lambda d: d["data"][0].update(voter="0x" + "01" * 20), "votes.voter"),
        (lambda d: d["data"][0].update(statements=["0x00"]), ""),
        (lambda d: d["data"][0].update(statements=["00"]), "votes"),
        (lambda d: d["data"][0].update(statements=["0x" + "00" * 5_000]), "votes"),
        (lambda d: d["data"][0]["statements"].__setitem__(0, d["data"][0]["statements"][0][:-2] + "ff"), ""),
        (lambda d: d["data"].append("x"), "votes"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused_by_field_and_changes_nothing(
    a_node: MakeNode, tmp_path: Path, edit: Callable[[Any], object], field: str
) -> None:
    old, new = a_node(), a_node()
    journal(old, a_vote())
    export_votes(old, tmp_path / "votes.json")
    with pytest.raises(MalformedInput) as caught:
        import_votes(new, change(tmp_path / "votes.json", edit))
    assert caught.value.field.startswith(field)
    assert journaled(new) == []


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00", '{"metadata": 1, "data": []}'])
def test_what_is_no_such_file_is_refused(a_node: MakeNode, tmp_path: Path, text: str) -> None:
    (tmp_path / "votes.json").write_text(text)
    with pytest.raises(MalformedInput):
        import_votes(a_node(), tmp_path / "votes.json")


def test_a_file_that_is_not_there_is_one_clear_error(a_node: MakeNode, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read: No such file"):
        import_votes(a_node(), tmp_path / "votes.json")


def test_a_retired_database_imports_nothing(a_node: MakeNode, tmp_path: Path) -> None:
    old = a_node()
    export_votes(old, tmp_path / "votes.json")
    with pytest.raises(ConfigError, match="retired"):
        import_votes(old, tmp_path / "votes.json")


def test_the_folder_of_secrets_may_be_copied_with_the_old_databases_name(a_node: MakeNode, tmp_path: Path) -> None:
    old, file = a_node(), tmp_path / "votes.json"
    journal(old, a_vote(), a_vote(1))
    assert export_votes(old, file) == 2
    home = tmp_path / "new"
    home.mkdir()
    for name in ("voting", "voting.database"):
        (home / name).write_bytes((old.settings.data_dir / name).read_bytes())
        (home / name).chmod(0o600)
    url = f"sqlite:///{home}/validator.sqlite"
    settings = old.settings.model_copy(
        update={"data_dir": home, "database_url": url, "voting_key_file": home / "voting"}
    )
    new = Node(settings, NoTasks())
    assert import_votes(new, file).new == 2
    meta = new.require_identity()
    assert (meta.created_block_s, meta.database_id != read_id(old.settings.id_file)) == (1_700_000_000, True)
    assert journaled(new) == journaled(old)

    write_id(settings.id_file, read_id(old.settings.id_file))  # as if the import had ended before its last step
    with pytest.raises(ConfigError, match="names another database"):
        new.require_identity()
    assert import_votes(new, file).new == 0
    assert new.require_identity() == meta
    new.close()


def test_votes_are_not_taken_over_in_place_of_a_third_database(a_node: MakeNode, tmp_path: Path) -> None:
    old, new, file = a_node(), a_node(), tmp_path / "votes.json"
    export_votes(old, file)
    write_id(new.settings.id_file, b"\x99" * 32)
    with pytest.raises(ConfigError, match="neither this one nor the one whose votes these are"):
        import_votes(new, file)
    with pytest.raises(ConfigError, match="retired"):
        import_votes(old, file)


def test_a_database_belongs_to_one_voting_key(a_node: MakeNode, tmp_path: Path) -> None:
    node = a_node()
    journal(node, a_vote())
    (tmp_path / "other").write_text(a_key(6).secret_hex())
    (tmp_path / "other").chmod(0o600)
    (tmp_path / "other.database").write_bytes(node.settings.id_file.read_bytes())
    other = Node(node.settings.model_copy(update={"voting_key_file": tmp_path / "other"}), NoTasks())
    with pytest.raises(
        ConfigError, match=f"the votes of 0x{KEY.address.hex()}, the voting key is 0x{a_key(6).address.hex()}"
    ):
        other.require_identity()
    other.close()
    node.require_identity()
