"""``logstore-validator votes``: take everything that a key has signed to another database.

The file is JSON, in the manner of EIP-3076 (slashing protection interchange), version 1:

    {"metadata": {"format": "logstore-votes", "version": 1,
                  "network": {"chain_id": 137, "parent_hash": "0x…", "contracts": "0x…"},
                  "database_id": "0x…", "exported_ms": 1700000000000,
                  "created_block_number": 1, "created_block_s": 1700000000, "config_count": 0},
     "data": [{"voter": "0x…", "statements": ["0x…", …]}]}

``contracts`` are the addresses' canonical bytes, ``statements`` canonical signed statements of ``voter`` in the order
they were journaled; of settled instances only the newest is kept. Integers are decimal, bytes are lower-case hex.

Export retires the database before it writes the file, in this order: of what is exported nothing can be outdated by a
vote that follows. Exporting again writes the same. Import takes a file into a database whose journal holds nothing
that the file does not know, and lets it vote where the exported one might have: no fresh wait is needed, since
nothing the key has said is missing. The secrets' folder may be copied as it is: the id beside the voting key then names
the exported database, and the import puts the new one's in its place, last of all.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
from sqlalchemy import Connection

from validator.protocol.codec.statement import decode_statement, encode_statement, verify_statement
from validator.protocol.errors import ConfigError, Disagreement, MalformedInput
from validator.protocol.model import Address, Digest, InstanceId, Statement
from validator.store.database import migrate
from validator.store.identity import describe_new, require_heir, require_network, write_id
from validator.store.meta import Meta, load_meta, replace_meta, save_retired
from validator.store.statements import load_whole_journal, take_over_vote
from validator.wiring import Node

FORMAT = "logstore-votes"
VERSION = 1
MAX_FILE_BYTES = 1 << 30
MAX_STATEMENT_BYTES = 1024

Hex = Annotated[str, msgspec.Meta(pattern="^0x(?:[0-9a-f]{2})*$", max_length=2 + 2 * MAX_STATEMENT_BYTES)]
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class NetworkPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The network that the votes are for."""

    chain_id: Count
    parent_hash: Hex
    contracts: Hex


class Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file is, and which database it is of."""

    format: str
    version: Count
    network: NetworkPart
    database_id: Hex
    exported_ms: Count
    created_block_number: Count
    created_block_s: Count
    config_count: Count


class Voter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that one key has signed."""

    voter: Hex
    statements: list[Hex]


class Interchange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    metadata: Metadata
    data: list[Voter]


@dataclass(frozen=True, slots=True)
class Imported:
    """How many statements a file held, and how many of them were new here."""

    statements: int
    new: int


Place = tuple[Digest, InstanceId]
Step = tuple[int, int]
"""(round, kind): the order in which one instance's statements are made."""


def export_votes(node: Node, path: Path) -> int:
    """Retire the database, then write the file; returns how many statements it holds. Safe to repeat.

    Raises:
        ConfigError: never initialised, another network's, or the file exists or cannot be written.
    """
    _require_new(path)
    now_ms = node.clock.now_ms()
    with node.database.write() as connection:
        meta = _load_meta(connection, node)
        if meta.retired_ms is None:
            save_retired(connection, now_ms)
            meta = replace(meta, retired_ms=now_ms)
    with node.database.read() as connection:
        statements = load_whole_journal(connection)
    by_voter: dict[Address, list[str]] = {}
    for statement in statements:
        by_voter.setdefault(statement.signer, []).append(_hex(encode_statement(statement)))
    assert meta.retired_ms is not None
    interchange = Interchange(
        Metadata(
            FORMAT,
            VERSION,
            NetworkPart(meta.chain_id, _hex(meta.parent_hash), _hex(meta.contracts)),
            _hex(meta.database_id),
            meta.retired_ms,
            meta.created_block_number,
            meta.created_block_s,
            meta.config_count,
        ),
        [Voter(_hex(voter), items) for voter, items in sorted(by_voter.items())],
    )
    _write(path, msgspec.json.format(msgspec.json.encode(interchange), indent=1) + b"\n")
    return len(statements)


def import_votes(node: Node, path: Path) -> Imported:
    """Add a file's statements to the journal, all or none; the database is made where there is none yet. Safe to
    repeat.

    Raises:
        ConfigError: the database is not ours to vote from, or the file cannot be read.
        MalformedInput: the file is not one of these, or holds a statement that the voting key has not signed.
        Disagreement: the journal holds what the file does not know: the file is older.
    """
    interchange = read_interchange(path)
    statements = list(_own_statements(node, interchange))
    migrate(node.settings.database_link())
    theirs, id_file = interchange.metadata, node.settings.id_file
    exported = _bytes(theirs.database_id)
    with node.database.write() as connection:
        held = load_meta(connection)
        require_heir(held, id_file, exported)
        meta = _take_over(node, held, theirs)
        _require_newer(load_whole_journal(connection), statements)
        now_ms = node.clock.now_ms()
        new = sum(take_over_vote(connection, statement, now_ms) for statement in statements)
        replace_meta(connection, meta)
    write_id(id_file, meta.database_id)  # last: before it, the old database's name keeps this one from voting
    return Imported(len(statements), new)


def _take_over(node: Node, held: Meta | None, theirs: Metadata) -> Meta:
    """What this database is once it holds the votes: it may vote wherever the exported one might have."""
    number, at_s, count = theirs.created_block_number, theirs.created_block_s, theirs.config_count
    if held is None:
        held = describe_new(
            node.network,
            secrets.token_bytes(32),
            node.clock.now_ms(),
            created_block_number=number,
            created_block_s=at_s,
            config_count=count,
        )
    require_network(held, node.network)
    _require_network(held, theirs)
    return replace(held, created_block_number=number, created_block_s=at_s, config_count=count)


def read_interchange(path: Path) -> Interchange:
    """A file as it stands. Raises ConfigError: cannot be read; MalformedInput: names the field and the reason."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise MalformedInput("votes", f"{size} bytes, at most {MAX_FILE_BYTES}")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}", field="FILE") from error
    try:
        interchange = msgspec.json.decode(data, type=Interchange)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInput("votes", str(error)) from error
    if interchange.metadata.format != FORMAT or interchange.metadata.version != VERSION:
        raise MalformedInput("votes.metadata", f"not format {FORMAT}, version {VERSION}")
    return interchange


def _own_statements(node: Node, interchange: Interchange) -> Iterator[Statement]:
    """Each one decoded and its signature verified; a file with another voter's is refused."""
    for part in interchange.data:
        if _bytes(part.voter) != node.address:
            raise MalformedInput("votes.voter", f"{part.voter} is not the voting key 0x{node.address.hex()}")
        for text in part.statements:
            statement = decode_statement(_bytes(text))
            if statement.signer != node.address:
                raise MalformedInput("votes.statements", "signed by another than the voter")
            verify_statement(statement, node.signing)
            yield statement


def _require_network(meta: Meta, theirs: Metadata) -> None:
    for name in ("chain_id", "parent_hash", "contracts"):
        own = getattr(meta, name)
        if (own if name == "chain_id" else _hex(own)) != getattr(theirs.network, name):
            raise MalformedInput("votes.network", f"another network: {name} differs")


def _require_newer(held: list[Statement], offered: list[Statement]) -> None:
    """Everything the journal holds is in the file, or lies below the newest that the file has of that instance.

    (The other database keeps of settled instances only the newest.)
    """
    content: dict[tuple[Place, Step], object] = {}
    newest: dict[Place, Step] = {}
    for statement in offered:
        place, step = _place(statement), _step(statement)
        if content.setdefault((place, step), statement.content) != statement.content:
            raise MalformedInput("votes.statements", f"two for {statement.instance}, round {statement.round}")
        newest[place] = max(step, newest.get(place, step))
    for statement in held:
        place, step = _place(statement), _step(statement)
        known = content.get((place, step))
        if known is None and newest.get(place, (-1, -1)) > step:
            continue
        if known != statement.content:
            raise Disagreement(
                f"the journal holds a {statement.kind.name.lower()} for {statement.instance}, round "
                f"{statement.round}, that the file does not: it is older than this database",
                instance=str(statement.instance),
            )


def _place(statement: Statement) -> Place:
    return statement.config_digest, statement.instance


def _step(statement: Statement) -> Step:
    return statement.round, int(statement.kind)


def _load_meta(connection: Connection, node: Node) -> Meta:
    meta = load_meta(connection)
    if meta is None:
        raise ConfigError(
            "LOGSTORE_DATABASE_URL: the database was never initialised; run logstore-validator init",
            field="LOGSTORE_DATABASE_URL",
        )
    require_network(meta, node.network)
    return meta


def _require_new(path: Path) -> None:
    """Before anything is retired: the file can be written, and overwrites nothing."""
    if path.exists():
        raise ConfigError(f"{path} exists; name a new file", field="FILE")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{path}: cannot write there; name a file in a folder of yours", field="FILE")


def _write(path: Path, data: bytes) -> None:
    """Whole and durable, or not at all; readable by its owner only."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(
            f"{path}: cannot write: {error.strerror}; the database is retired, export again elsewhere", field="FILE"
        ) from error


def _hex(data: bytes) -> str:
    return f"0x{data.hex()}"


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])
