"""Which database speaks for a voting key: a random id in the database, and in a file beside the key.

A key must never sign from two databases, and a database that has not seen every vote of its key (an empty one, a
restored backup, a promoted standby) must wait until the windows it cannot know of have passed. So the database notes
the block of its creation, and the file names the one database that may be used with the key.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from sqlalchemy import Connection, select

from validator.protocol.codec.statement import decode_statement
from validator.protocol.errors import ConfigError, InvariantError
from validator.protocol.model import Address, Block
from validator.protocol.parameters import Network
from validator.store import schema
from validator.store.database import Database
from validator.store.meta import (
    Meta,
    create_meta,
    encode_contracts,
    load_meta,
    replace_meta,
    require_active,
    retired_error,
)

SETTING = "LOGSTORE_DATABASE_ID_FILE"
MAX_ID_FILE_BYTES = 256


def create_identity(database: Database, id_file: Path, network: Network, head: Block | None, now_ms: int) -> Meta:
    """Note what a new database is, and write its id beside the key. Safe to repeat, and after a crash in between.

    ``head``: the newest block; only a database that is known already needs none.

    Raises:
        ConfigError: the database is another network's, or the key belongs to another database.
    """
    with database.write() as connection:
        held = load_meta(connection)
        if held is None:
            if id_file.exists():
                raise _refusal(
                    f"{id_file} names another database, this one is empty; use that one, or, where its votes were "
                    "exported, run logstore-validator votes import FILE, or, if it is lost for good, "
                    "logstore-validator init --restored",
                    SETTING,
                )
            held = create_meta(connection, _new_meta(network, head, now_ms))
        else:
            require_network(held, network)
        voted = has_voted(connection)
    if not id_file.exists():
        if voted:
            raise _refusal(
                f"{id_file} is missing though this database holds votes; put it back, or, if the key or the database "
                "came from a backup, run logstore-validator init --restored",
                SETTING,
            )
        write_id(id_file, held.database_id)
    _require_same(id_file, held)
    return held


def renew_identity(database: Database, id_file: Path, network: Network, head: Block | None, now_ms: int) -> Meta:
    """Make this database the key's from now on, whatever was before: it votes again only after the fresh wait.

    For a restored backup, a promoted standby, or an empty database in place of a lost one.

    Raises:
        ConfigError: the database is another network's, or was retired by an export of its votes.
    """
    with database.write() as connection:
        held = load_meta(connection)
        if held is not None:
            require_network(held, network)
            require_active(connection)
        renewed = _new_meta(network, head, now_ms)
        replace_meta(connection, renewed)
    write_id(id_file, renewed.database_id)
    return renewed


def require_identity(database: Database, id_file: Path, network: Network) -> Meta:
    """What this database is, if it may speak for the key.

    Raises:
        ConfigError: never initialised, of another network, retired, or not the database that the id file names.
    """
    with database.read() as connection:
        held = load_meta(connection)
    if held is None:
        raise _refusal("the database was never initialised; run logstore-validator init", "LOGSTORE_DATABASE_URL")
    require_network(held, network)
    if held.retired_ms is not None:
        raise retired_error()
    _require_same(id_file, held)
    return held


def require_votes_of(database: Database, key: Address) -> None:
    """One database, one voting key. Raises ConfigError: the newest vote in the journal is another key's."""
    newest = select(schema.journal.c.bytes).order_by(schema.journal.c.id.desc()).limit(1)
    with database.read() as connection:
        data = connection.scalar(newest)
    signer = key if data is None else decode_statement(data).signer
    if signer != key:
        raise _refusal(
            f"this database holds the votes of 0x{signer.hex()}, the voting key is 0x{key.hex()}; name that key's "
            "database, or a new one",
            "LOGSTORE_DATABASE_URL",
        )


def require_heir(held: Meta | None, id_file: Path, exported: bytes) -> None:
    """Before a database takes over the votes of the database ``exported``: it is the key's already, or that one was.

    So secrets that were copied with the id file of the old database do, and so does a try that ended in between.

    Raises:
        ConfigError: the id file names a third database, or the one here has a past of its own.
    """
    if held is not None and held.retired_ms is not None:
        raise retired_error()
    if not id_file.exists():
        if held is None:
            return
        raise _refusal(f"{id_file} is missing; put it back", SETTING)
    named = read_id(id_file)
    if named != exported and (held is None or named != held.database_id):
        raise _refusal(
            f"{id_file} names a database that is neither this one nor the one whose votes these are; use that one",
            SETTING,
        )


def require_network(held: Meta, network: Network) -> None:
    """Raises ConfigError naming what differs: chain id, contracts, or the block before their deployment."""
    wanted = {
        "chain_id": network.chain_id,
        "parent_hash": network.deployment_parent_hash,
        "contracts": encode_contracts(network.contracts),
    }
    for name, value in wanted.items():
        if getattr(held, name) != value:
            raise _refusal(
                f"this database belongs to another network ({name} differs); name another database",
                "LOGSTORE_DATABASE_URL",
            )


def has_voted(connection: Connection) -> bool:
    """Whether the journal holds anything."""
    return connection.scalar(select(schema.journal.c.id).limit(1)) is not None


def write_id(id_file: Path, database_id: bytes) -> None:
    """Write the id file whole, or not at all. Raises ConfigError naming the setting."""
    temporary = id_file.with_name(f".{id_file.name}.{secrets.token_hex(4)}")
    try:
        id_file.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("x") as file:
            file.write(f"0x{database_id.hex()}\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(id_file)
        folder = os.open(id_file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise _refusal(f"cannot write {id_file}: {error.strerror}; name a file that can be written", SETTING) from error


def read_id(id_file: Path) -> bytes:
    """The id that the file names. Raises ConfigError: not there, not readable, or not 32 bytes of hex."""
    try:
        with id_file.open("rb") as file:
            text = file.read(MAX_ID_FILE_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        raise _refusal(
            f"cannot read {id_file}: {error.strerror}; it names the one database that may be used with the key",
            SETTING,
        ) from error
    try:
        database_id = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        database_id = b""
    if len(database_id) != 32:
        raise _refusal(f"{id_file} does not hold 32 bytes of hex", SETTING)
    return database_id


def _new_meta(network: Network, head: Block | None, now_ms: int) -> Meta:
    if head is None:
        raise InvariantError("a database cannot begin without a block")
    return describe_new(
        network,
        secrets.token_bytes(32),
        now_ms,
        created_block_number=head.number,
        created_block_s=head.timestamp_s,
        config_count=network.config_count,
    )


def describe_new(
    network: Network,
    database_id: bytes,
    now_ms: int,
    *,
    created_block_number: int,
    created_block_s: int,
    config_count: int,
) -> Meta:
    """What a new database of this network is."""
    return Meta(
        database_id=database_id,
        created_ms=now_ms,
        created_block_number=created_block_number,
        created_block_s=created_block_s,
        chain_id=network.chain_id,
        parent_hash=network.deployment_parent_hash,
        contracts=encode_contracts(network.contracts),
        config_count=config_count,
    )


def _require_same(id_file: Path, held: Meta) -> None:
    if read_id(id_file) != held.database_id:
        raise _refusal(
            f"{id_file} names another database; use that one, or, if this one replaces it for good, "
            "run logstore-validator init --restored",
            SETTING,
        )


def _refusal(reason: str, setting: str) -> ConfigError:
    return ConfigError(f"{setting}: {reason}", field=setting)
