"""logstore publish: messages from the command line or standard input, signed and handed to brokers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from logstore.commands.options import (
    BrokerOption,
    CacheOption,
    JsonOption,
    KeyOption,
    NetworkOption,
    PartitionOption,
    RpcOption,
    StreamArgument,
    connected,
    make_output,
)
from logstore.output import count_of
from logstore.times import format_time
from validator.protocol.errors import ConfigError

if TYPE_CHECKING:
    from logstore.publishing import Published, Publisher, Raw

READ_BYTES = 1 << 20
MAX_LINE_BYTES = 4 << 20


def publish(
    stream: StreamArgument,
    content: Annotated[str, typer.Argument(metavar="JSON|-", help="One content; - for standard input, one a line.")],
    partition: PartitionOption = 0,
    time: Annotated[
        str | None, typer.Option("--time", metavar="TIME", help="Of late data: when it was measured. Default: now.")
    ] = None,
    time_field: Annotated[
        str | None,
        typer.Option("--time-field", metavar="NAME", help="Likewise, a member of each content: its timestamp."),
    ] = None,
    broker: BrokerOption = None,
    key: KeyOption = None,
    network: NetworkOption = None,
    rpc: RpcOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign contents as Streamr messages and hand them to brokers; a line of standard input leaves when it was read.

    Each is on at least one broker's disk when the command ends with status 0. Message chains go on where the last
    command left them. Late data is published with the time that it has, at most 30 days back.

    Status 0: all taken; 1: refused, and why; 2: wrong words; 3: no broker could be reached.

    Example: logstore publish 0x…/sensors '{"temperature": 21.5}'
    """
    if time is not None and time_field is not None:
        raise ConfigError("--time: not together with --time-field", field="time")
    output = make_output(as_json)
    told = Told()
    batches = _batches(content)
    with (
        connected(network, rpc, None, cache, output, key) as store,
        store.publisher(stream, partition=partition, brokers=broker or ()) as publisher,
    ):
        for batch in batches:
            for published in publisher.publish_all((raw, _time_of(raw, time, time_field)) for raw in batch):
                told.add(published)
    output.document(told.describe(stream, partition, publisher), lambda out: out.line(told.say()))


class Told:
    """What was published, and who has it."""

    def __init__(self) -> None:
        self.count = 0
        self.by: dict[str, int] = {}
        self.lacking: dict[str, str] = {}
        self.times: list[int] = []

    def add(self, batch: list[Published]) -> None:
        self.count += len(batch)
        for each in batch:
            for url in each.brokers:
                self.by[url] = self.by.get(url, 0) + 1
            self.lacking |= each.others
        stamps = [each.timestamp_ms for each in batch]
        self.times = [min(self.times[:1] + stamps), max(self.times[1:] + stamps)]

    def describe(self, stream: str, partition: int, publisher: Publisher) -> dict[str, Any]:
        """As JSON values."""
        return {
            "stream": stream,
            "partition": partition,
            "publisher": f"0x{publisher.publisher_id.hex()}",
            "messages": self.count,
            "brokers": self.by,
            "without": self.lacking,
            "first_ms": self.times[0] if self.times else None,
            "last_ms": self.times[1] if self.times else None,
        }

    def say(self) -> str:
        """For people."""
        if not self.count:
            return "nothing to publish"
        first, last = (format_time(ms) for ms in self.times)
        when = f"at {first}" if first == last else f"from {first} to {last}"
        lacking = "".join(f"\nnot at {url}: {said}" for url, said in self.lacking.items())
        return f"published {count_of(self.count, 'message')} {when}; held by {', '.join(self.by)}{lacking}"


def _time_of(raw: Raw, time: str | None, field: str | None) -> str | int | None:
    if field is None:
        return time
    value = raw.value.get(field) if isinstance(raw.value, dict) else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ConfigError(f"--time-field: a content has no time in {field!r}", field="time_field")
    return value


def _batches(content: str) -> Iterable[list[Raw]]:
    """Contents, as many at once as there are. Raises ConfigError, at once for one of the command line."""
    from logstore.publishing import Raw

    return _batches_of_input() if content == "-" else [[Raw(content.encode())]]


def _batches_of_input() -> Iterator[list[Raw]]:
    """Raises ConfigError, which names the line."""
    from logstore.publishing import Raw

    number = 0
    for lines in _lines(sys.stdin.fileno()):
        batch = []
        for line in lines:
            number += 1
            if line.strip():
                try:
                    batch.append(Raw(line.strip()))
                except ConfigError as error:
                    raise ConfigError(f"line {number}: {error}", field="content") from error
        if batch:
            yield batch


def _lines(descriptor: int) -> Iterator[list[bytes]]:
    """Whole lines as they come: what waits is read at once, and nothing is waited for but the next."""
    rest = b""
    while piece := os.read(descriptor, READ_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise ConfigError(f"a line of more than {MAX_LINE_BYTES} bytes", field="content")
        if lines:
            yield lines
    if rest:
        yield [rest]
