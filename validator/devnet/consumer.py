"""A consumer of the development network: reads ranges from brokers all through the run and pays by receipts.

``python -m validator.devnet.consumer --config FILE.json`` asks a broker for a range ``per_second`` times a second
between ``start_ms`` and ``end_ms``, counts the bytes of each answer, signs a receipt over all bytes read from that
broker so far, and hands it over (``POST /receipts``). It ends by itself once the time is over and each broker that
it owes has the newest receipt, or was asked three times in vain.

File ``log``, JSON lines: {"time_ms", "event": "answer", "broker", "stream", "partition", "bytes", "cumulative_bytes"},
{"time_ms", "event": "receipt", "broker", "cumulative_bytes", "kept"}, {"time_ms", "event": "failed", "broker",
"reason"}, and at the end {"time_ms", "event": "end", "totals": {broker: bytes}}.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from random import Random
from urllib.parse import quote

import httpx
import msgspec

from validator.devnet.eras import Era
from validator.devnet.process import LineLog, now_ms, read_address, read_config, read_key, run
from validator.net.brokers.dialects import make_logins
from validator.protocol.codec.receipt import sign_receipt, write_receipt
from validator.protocol.errors import ConfigError

MAX_ANSWER_BYTES = 8 << 20
MAX_SPAN_MS = 6_000


class BrokerConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A broker: node address (the receipts name it), base URL, and how it wants to be asked."""

    address: str
    url: str
    era: Era = Era.YEAR_2023


class StreamConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    id: str
    partitions: int


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The consumer's config file. ``epoch_ms``: how long an epoch is, counted from ``start_ms``; receipts name theirs.
    ``max_price`` is base units per MiB as a decimal text, below 2^96.
    """

    key: str
    brokers: list[BrokerConfig]
    streams: list[StreamConfig]
    chain_id: int
    query_manager: str
    start_ms: int
    end_ms: int
    log: Path
    epoch_ms: int
    max_price: str = str(1 << 40)
    per_second: float = 2.0
    seed: int = 0


class Consumer:
    """Reads and pays. One thread."""

    def __init__(self, config: Config, client: httpx.Client) -> None:
        """Raises ConfigError for a key, address or price that is none, and for no brokers or streams."""
        if not config.brokers or not config.streams or config.per_second <= 0:
            raise ConfigError("brokers, streams and per_second must not be empty or 0", field="brokers")
        if not (config.max_price.isdecimal() and int(config.max_price) < 1 << 96):
            raise ConfigError("max_price: not a decimal number below 2^96", field="max_price")
        self.config = config
        self.client = client
        self.key = read_key(config.key, "key")
        self.query_manager = read_address(config.query_manager, "query_manager")
        self.addresses = {broker.url: read_address(broker.address, "brokers") for broker in config.brokers}
        self.eras = {broker.url: broker.era for broker in config.brokers}
        self.logins = make_logins(self.key)
        self.chance = Random(f"{config.seed}/consumer/{self.key.address.hex()}")
        self.log = LineLog(config.log)
        self.read: dict[str, int] = {broker.url: 0 for broker in config.brokers}
        self.paid: dict[str, int] = {broker.url: 0 for broker in config.brokers}
        self.epoch = 0

    def run(self) -> None:
        """Query until end_ms, then hand over what is still owed."""
        config = self.config
        number = 0
        while (due_ms := config.start_ms + number * 1000 / config.per_second) < config.end_ms:
            number += 1
            if due_ms < now_ms() - 1000:
                continue
            time.sleep(max(0.0, due_ms - now_ms()) / 1000)
            self._turn_epoch()
            url = config.brokers[number % len(config.brokers)].url
            try:
                self.query(url)
                self.pay(url)
            except (httpx.HTTPError, ValueError) as error:
                self._log("failed", url, reason=f"{type(error).__name__}: {error}"[:200])
        for url in self.read:
            self._settle(url)
        totals = {"0x" + self.addresses[url].hex(): count for url, count in self.read.items()}
        self.log.write({"time_ms": now_ms(), "event": "end", "totals": totals})

    def query(self, url: str) -> None:
        """Read one range and count its bytes. Raises httpx.HTTPError or ValueError; then nothing is owed."""
        stream = self.chance.choice(self.config.streams)
        partition = self.chance.randrange(stream.partitions)
        end_ms = now_ms()
        dialect = self.eras[url].dialect
        headers = {"authorization": self.logins[dialect.hex_password], "accept-encoding": "identity"}
        target = f"{url}/{dialect.prefix}/{quote(stream.id, safe='')}/data/partitions/{partition}/range"
        span = {"fromTimestamp": str(end_ms - self.chance.randint(500, MAX_SPAN_MS)), "toTimestamp": str(end_ms)}
        size = 0
        with self.client.stream("GET", target, params={**span, "format": "raw"}, headers=headers) as answer:
            if answer.status_code != 200:
                raise ValueError(f"status {answer.status_code}")
            for piece in answer.iter_raw():
                size += len(piece)
                if size > MAX_ANSWER_BYTES:
                    raise ValueError(f"more than {MAX_ANSWER_BYTES} bytes")
        self.read[url] += size
        self._log("answer", url, stream=stream.id, partition=partition, bytes=size, cumulative_bytes=self.read[url])

    def pay(self, url: str) -> None:
        """Sign for all bytes read from the broker so far and hand it over."""
        owed = self.read[url]
        receipt = sign_receipt(
            self.key,
            self.addresses[url],
            self.epoch,
            owed,
            int(self.config.max_price),
            chain_id=self.config.chain_id,
            query_manager=self.query_manager,
        )
        answer = self.client.post(url + "/receipts", content=write_receipt(receipt))
        if answer.status_code != 200:
            raise ValueError(f"receipt: status {answer.status_code}")
        self.paid[url] = owed
        self._log("receipt", url, cumulative_bytes=owed, kept=bool(answer.json().get("kept")))

    def _turn_epoch(self) -> None:
        """A new epoch's receipts count from 0: what the last one's owe is handed over before."""
        epoch = (now_ms() - self.config.start_ms) // self.config.epoch_ms
        if epoch > self.epoch:
            for url in self.read:
                self._settle(url)
                self.read[url] = self.paid[url] = 0
            self.epoch = epoch

    def _settle(self, url: str) -> None:
        for _ in range(3):
            if self.paid[url] >= self.read[url]:
                return
            try:
                self.pay(url)
            except (httpx.HTTPError, ValueError) as error:
                self._log("failed", url, reason=f"{type(error).__name__}: {error}"[:200])
                time.sleep(0.2)

    def _log(self, event: str, url: str, **fields: object) -> None:
        self.log.write({"time_ms": now_ms(), "event": event, "broker": "0x" + self.addresses[url].hex(), **fields})


def main(config_file: Path) -> None:
    """Read and pay until the time is over. Raises ConfigError before the first query."""
    config = read_config(Config, config_file)
    with httpx.Client(timeout=5.0, trust_env=False) as client:
        Consumer(config, client).run()


if __name__ == "__main__":
    sys.exit(run("consumer", main, sys.argv[1:]))
