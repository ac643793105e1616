"""``check``, the machine's part: keys, database, disk, sets, Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kombu.connection import Connection
from kombu.exceptions import KombuError, OperationalError

from validator.keys import HEX_WARNING, is_development, variable_of
from validator.net.signer.remote import RemoteSigner
from validator.net.signer.source import KeyKind, kind_of
from validator.operations.findings import Finding, fail, ok, warn
from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.errors import ConfigError, TransientError
from validator.protocol.hashing import EMPTY_ROOT
from validator.protocol.model import Address
from validator.redis_link import make_redis_link
from validator.settings import Settings
from validator.store.disk import measure_disk
from validator.store.segments import SegmentStore
from validator.wiring import Node

REMOTE_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "sshfs")
"""Their locks and syncs are not what SQLite relies on."""
REDIS_S = 3.0
PURPOSES = {
    "voting": "all processes but beat and Flower",
    "gas": "worker report",
    "query": "worker collect",
}


def load_address(node: Node, purpose: str) -> Address | None:
    """The address of a key; None if it is not set here. Raises ConfigError as ``keys.load_signer``."""
    if not node.settings.has_secret(purpose):
        return None
    signer: Signer = getattr(node, f"{purpose}_key")
    return signer.address


def check_keys(node: Node) -> Iterator[Finding]:
    """Each key readable, by us only, each another one, and none in the open where there is money."""
    settings = node.settings
    held: dict[Address, str] = {}
    for purpose, user in PURPOSES.items():
        name = f"{purpose} key"
        try:
            address = load_address(node, purpose)
        except ConfigError as error:
            yield fail(name, str(error))
            continue
        if address is None:
            yield warn(name, f"LOGSTORE_{purpose.upper()}_KEY_FILE is not set here; needed by {user}")
        elif address in held:
            yield warn(name, f"0x{address.hex()} is the {held[address]} key too; use one key for one purpose")
        else:
            held[address] = purpose
            yield _judge_kind(node, purpose, address)
    try:
        if settings.wallet_text() is None:
            yield warn("wallet", "LOGSTORE_WALLET_FILE is not set here; needed by worker bundle")
    except ConfigError as error:
        yield fail("wallet", str(error))


def _judge_kind(node: Node, purpose: str, address: Address) -> Finding:
    name, kind = f"{purpose} key", kind_of(node.settings.key_text(purpose))
    if kind is KeyKind.HEX and not is_development(node.network):
        return warn(name, f"0x{address.hex()}: {variable_of(purpose)} {HEX_WARNING}")
    signer = getattr(node, f"{purpose}_key")
    if isinstance(signer, RemoteSigner):
        try:
            signer.check()
        except TransientError as error:
            return fail(name, f"0x{address.hex()}: {error}")
        return ok(name, f"0x{address.hex()} at {signer.host}")
    return ok(name, f"0x{address.hex()}, {kind}")


def check_database(node: Node) -> Iterator[Finding]:
    """At head, this network's, the key's; SQLite on a local disk and in WAL mode."""
    meta = node.require_identity()
    yield ok("database", f"at head, id 0x{meta.database_id.hex()}, begun at block {meta.created_block_number}")
    database = node.database
    if not database.is_sqlite:
        return
    path = Path(database.url.database or "").resolve()
    kind = file_system_of(path, Path("/proc/mounts").read_text() if Path("/proc/mounts").exists() else "")
    if kind in REMOTE_FILE_SYSTEMS or kind.startswith("fuse"):
        yield fail("database", f"{path} lies on {kind}; SQLite needs a local disk, or use PostgreSQL")
    with database.read() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    if mode != "wal":
        yield fail("database", f"SQLite is in mode {mode}, not wal; run logstore-validator init")


def file_system_of(path: Path, mounts: str) -> str:
    """Kind of the file system that holds ``path``, by the text of /proc/mounts; "" if it does not say."""
    found, length = "", -1
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        mount = fields[1].replace("\\040", " ")
        if path.is_relative_to(mount) and len(mount) > length:
            found, length = fields[2], len(mount)
    return found


def check_disk(settings: Settings) -> Iterator[Finding]:
    disk = measure_disk(settings.data_dir, settings.disk_floor)
    text = f"{disk.free >> 20} MiB free, voting stops below {disk.floor >> 20} MiB"
    if disk.is_full:
        yield fail("disk", text)
    elif disk.free < 2 * disk.floor:
        yield warn("disk", text)
    else:
        yield ok("disk", text)


def check_sets(settings: Settings) -> Iterator[Finding]:
    """Where sets are shared by several machines: that the place can be opened, and answers."""
    if settings.segments_url:
        SegmentStore(settings.segments_url).exists(EMPTY_ROOT)
        yield ok("sets", "the place that all machines share answers")


def check_redis(settings: Settings) -> Iterator[Finding]:
    """Only that it answers: what it holds may be lost at any time."""
    try:
        link = make_redis_link(settings)
        options = {**link.options, "socket_timeout": REDIS_S, "socket_connect_timeout": REDIS_S}
        with Connection(  # type: ignore[no-untyped-call]
            link.url, connect_timeout=REDIS_S, ssl=link.tls, transport_options=options
        ) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=REDIS_S)
            connection.default_channel.client.ping()
    except ConfigError as error:
        yield fail("redis", str(error))
        return
    except (OperationalError, KombuError, OSError, ValueError) as error:
        yield fail("redis", f"LOGSTORE_REDIS_URL: {' '.join(str(error).split()) or type(error).__name__}")
        return
    except Exception as error:  # redis-py's own errors, a tree apart
        yield fail("redis", f"LOGSTORE_REDIS_URL: {type(error).__name__}: {error}")
        return
    yield ok("redis", "answers")
