"""Options that every command takes, and what they lead to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from logstore.output import Output
from validator.protocol.errors import ConfigError

if TYPE_CHECKING:
    from logstore.reports import Reports
    from logstore.store import LogStore
    from validator.protocol.parameters import Network

NetworkOption = Annotated[
    str | None,
    typer.Option(
        "--network", metavar="FILE|URL", help="The network's file; else LOGSTORE_NETWORK_FILE, ./network.toml."
    ),
]
RpcOption = Annotated[
    list[str] | None,
    typer.Option("--rpc", metavar="URL", help="A node of the chain, several times; else LOGSTORE_RPC_URLS, the file."),
]
GatewayOption = Annotated[
    list[str] | None,
    typer.Option("--gateway", metavar="URL", help="An Arweave gateway; else LOGSTORE_GATEWAY_URLS, the file."),
]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", metavar="DIR", help="Where downloads are kept; else LOGSTORE_CACHE_DIR.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]
FromOption = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="2026-11-30T12:00, -1h, or Unix milliseconds.")
]
ToOption = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Likewise; not included. Default: now.")]
VerifyOption = Annotated[
    str,
    typer.Option(
        "--verify", metavar="bundle|none", help="none: take gateways' files as they are, without reading them whole."
    ),
]

StreamArgument = Annotated[str, typer.Argument(metavar="STREAM", help="The stream's id.")]
PartitionOption = Annotated[int, typer.Option("--partition", min=0, metavar="N", help="Of the stream.")]
BrokerOption = Annotated[
    list[str] | None,
    typer.Option("--broker", metavar="URL", help="A broker, several times; else those that the chain names."),
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key", metavar="FILE", help="Whose key: hex, a keystore, or a remote signer; else LOGSTORE_KEY_FILE."
    ),
]


@contextmanager
def connected(
    network: str | None,
    rpc: list[str] | None,
    gateway: list[str] | None,
    cache: Path | None,
    output: Output,
    key: Path | None = None,
) -> Iterator[LogStore]:
    """The network that the options name. Raises ConfigError; TransientError and RemoteFault for a file's address."""
    from logstore.connection import find_sources
    from logstore.store import LogStore

    sources = find_sources(network, rpc or (), gateway or (), cache)
    if sources.remark:
        output.note(sources.remark)
    with LogStore(sources, key) as store:
        yield store


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom a command may ask, and where it says what came of it."""

    network: str | None
    rpc: list[str] | None
    gateway: list[str] | None
    cache: Path | None
    offline: bool
    output: Output

    def connect(self) -> AbstractContextManager[LogStore]:
        return connected(self.network, self.rpc, self.gateway, self.cache, self.output)

    def find_network(self) -> Network | None:
        """The network's file, if one is named or lies here; nobody is asked for it. Raises ConfigError."""
        from logstore.connection import find_sources, has_network

        if not has_network(self.network):
            return None
        return find_sources(self.network, cache=self.cache, offline=True).network


def parse_span(from_text: str | None, to_text: str | None, default_from: str | None = None) -> tuple[int | None, int]:
    """[from, to) in Unix ms; None: from the beginning. Raises ConfigError, also where it is empty."""
    from logstore.connection import now_ms
    from logstore.times import parse_time

    now = now_ms()
    to_ms = now if to_text is None else parse_time(to_text, now, "--to")
    from_text = from_text or default_from
    if from_text is None:
        return None, to_ms
    from_ms = parse_time(from_text, now, "--from")
    if from_ms >= to_ms:
        raise ConfigError("--from: not before --to", field="from")
    return from_ms, to_ms


def parse_verify(text: str) -> bool:
    """Whether files are verified. Raises ConfigError."""
    if text not in ("bundle", "none"):
        raise ConfigError(f"--verify: {text!r} is none of bundle, none", field="verify")
    return text == "bundle"


def find_numbers(reports: Reports, from_ms: int | None, to_ms: int) -> range:
    """Numbers of the bundles of a span; None: from the first."""
    return reports.find(0 if from_ms is None else from_ms, to_ms)


def make_output(as_json: bool) -> Output:
    return Output(as_json=as_json)
