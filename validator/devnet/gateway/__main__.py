"""The gateway as a process of its own."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import uvicorn
from starlette.types import ASGIApp

from validator.devnet.gateway.faults import AbortableProtocol
from validator.devnet.gateway.routes import Gateway
from validator.devnet.gateway.weave import Weave
from validator.devnet.process import listen, write_port
from validator.protocol.errors import ConfigError


def open_log(path: Path | None) -> Callable[..., None]:
    """Function that writes one JSON line per event, or does nothing without a file."""
    if path is None:
        return lambda *_, **__: None
    file: IO[str] = path.open("a", buffering=1)

    def write(event: str, **fields: object) -> None:
        file.write(json.dumps({"time_ms": time.time_ns() // 1_000_000, "event": event, **fields}) + "\n")

    return write


class LogHandler(logging.Handler):
    """Sends what the server complains about to the log, since nothing else is printed."""

    def __init__(self, log: Callable[..., None]) -> None:
        super().__init__(logging.WARNING)
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        self.log("server", level=record.levelname, message=self.format(record))


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="validator.devnet.gateway", description="Arweave gateway for development.")
    parser.add_argument("--port-file", type=Path, required=True, help="where to write the port once it listens")
    parser.add_argument("--data", type=Path, required=True, help="folder for chunk data; made where it is missing")
    parser.add_argument("--mine-ms", type=int, default=500, help="time between blocks; 0: mine on request only")
    parser.add_argument("--log", type=Path, default=None, help="file for one JSON line per event")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0: any free one")
    return parser.parse_args(arguments)


def make_server(app: ASGIApp) -> uvicorn.Server:
    """The server of a gateway's routes; its connections can be cut by faults."""
    config = uvicorn.Config(
        app,
        http=AbortableProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM or SIGINT. Exit status 2 where a folder or the port can not be had."""
    options = parse_arguments(arguments)
    try:
        options.data.mkdir(parents=True, exist_ok=True)
        log = open_log(options.log)
        listener = listen(options.port)
        logging.getLogger("uvicorn").addHandler(LogHandler(log))
        gateway = Gateway(Weave(options.data), log, options.mine_ms)
        server = make_server(gateway.build_app())
        write_port(options.port_file, listener.getsockname()[1])
    except (OSError, ConfigError) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the server raises the signal again when it has ended
    sys.exit(main(sys.argv[1:]))
