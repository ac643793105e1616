"""What the small processes of the development network do alike: read a config file, listen, write lines.

Each is started with ``--config FILE.json``, binds 127.0.0.1 (port 0: any free one), writes the port it got to its
``port_file`` in one step, and ends on SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvicorn

from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import ConfigError
from validator.protocol.model import Address

C = TypeVar("C", bound=msgspec.Struct)

MAX_CONFIG_BYTES = 4 << 20


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def read_config(kind: type[C], path: Path) -> C:
    """The config file as ``kind``, a struct that forbids unknown fields.

    Raises:
        ConfigError: unreadable, too large, or the field that is missing, unknown or of the wrong type.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", field="config") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: more than {MAX_CONFIG_BYTES} bytes", field="config")
    try:
        return msgspec.json.decode(data, type=kind, dec_hook=_path)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path}: {error}", field="config") from error


def _path(kind: type, value: Any) -> Any:
    """msgspec's hook for types it does not know."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"expected a text for {kind.__name__}")


def read_key(text: str, field: str) -> SigningKey:
    """A private key from 0x and 64 hex digits. Raises ConfigError that never shows the value."""
    try:
        return SigningKey(bytes.fromhex(text.removeprefix("0x")))
    except ValueError:
        raise ConfigError(f"{field}: not the 32 bytes of a private key in hex", field=field) from None


def read_address(text: str, field: str) -> Address:
    """20 bytes from 0x and 40 hex digits. Raises ConfigError."""
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        value = b""
    if len(value) != 20:
        raise ConfigError(f"{field}: {text!r} is not 0x and 40 hex digits", field=field)
    return Address(value)


def reserve(port: int = 0) -> socket.socket:
    """A socket on 127.0.0.1 whose port nobody else gets, and that refuses connections until its process listens.

    A port of the kernel's choice is bound without SO_REUSEADDR, or the kernel would give it twice while nobody listens.
    The protocol is named because asyncio switches Nagle's algorithm off only where it is; without, each answer of two
    packets waits 40 ms for an acknowledgement. Raises ConfigError if the port is taken.
    """
    reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, port != 0)
    try:
        reserved.bind(("127.0.0.1", port))
    except OSError as error:
        reserved.close()
        raise ConfigError(f"port {port}: {error.strerror}", field="port") from error
    # what it accepts must not keep it from a fresh start
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return reserved


def listen(port: int = 0) -> socket.socket:
    """A listening socket on 127.0.0.1. Raises ConfigError if the port is taken."""
    listener = reserve(port)
    listener.listen(128)
    return listener


def write_port(path: Path, port: int) -> None:
    """Write the port in one step, so that a reader sees all of it or nothing."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(f"{port}\n")
    os.replace(partial, path)


def serve(app: Any, listener: socket.socket, port_file: Path) -> None:
    """Serve the ASGI app until SIGTERM or SIGINT; the port is written once connections are taken."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
    )
    write_port(port_file, listener.getsockname()[1])
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        return


class LineLog:
    """A file of JSON lines, appended to and flushed call by call, so that a killed process loses nothing it did."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError if the file cannot be opened for writing."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}", field="log") from error

    def write(self, *entries: Any) -> None:
        self.write_all(entries)

    def write_all(self, entries: Iterable[Any]) -> None:
        self._file.write(b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def end_process_on_failure(task: asyncio.Task[None]) -> None:
    """A part that has silently stopped would look like a quiet network: fail in the open."""
    if not task.cancelled() and task.exception() is not None:
        error = task.exception()
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
        raise SystemExit(1)


def run(name: str, main: Callable[[Path], None], arguments: list[str]) -> int:
    """Exit status of ``main(config path)``: 0, or 2 after one line that names field and reason."""
    parser = argparse.ArgumentParser(prog=f"validator.devnet.{name}")
    parser.add_argument("--config", type=Path, required=True, help="JSON file; its fields are in the module's Config")
    options = parser.parse_args(arguments)
    try:
        main(options.config)
    except ConfigError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 2
    return 0
