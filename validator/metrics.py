"""What Prometheus reads: counters where things happen, and gauges from the database at the moment of a scrape.

Counters live in the process that counts. Where ``PROMETHEUS_MULTIPROC_DIR`` names a folder before a process starts
(one per validator, emptied at its start), the operator listener adds up those of the server and of all workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

registry = CollectorRegistry()

steps = Counter("logstore_steps", "Pipeline steps ended, by step and result", ["step", "result"], registry=registry)
step_seconds = Histogram(
    "logstore_step_seconds",
    "Duration of pipeline steps",
    ["step"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
    registry=registry,
)
pulls = Counter("logstore_pulls", "Answers of brokers, by broker and result", ["broker", "result"], registry=registry)
pull_seconds = Histogram(
    "logstore_pull_seconds",
    "Time until a broker's answer was complete",
    ["broker"],
    buckets=(0.03, 0.1, 0.3, 1, 3, 10, 30),
    registry=registry,
)
pull_bytes = Counter("logstore_pull_bytes", "Bytes received from brokers", ["broker"], registry=registry)
pull_records = Counter("logstore_pull_records", "Records received from brokers", ["broker"], registry=registry)
peer_refusals = Counter("logstore_peer_refusals", "Requests of peers refused, by reason", ["reason"], registry=registry)
remote_calls = Counter(
    "logstore_remote_calls",
    "Calls to RPC nodes, gateways and peers, by kind, host and result",
    ["kind", "host", "result"],
    registry=registry,
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One gauge value at the moment of a scrape."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def render_metrics(load: Callable[[], Iterable[Sample]]) -> bytes:
    """Prometheus' text form of all counters and of what ``load`` returns; an error of ``load`` is the caller's."""
    scrape = CollectorRegistry()
    scrape.register(_Snapshot(list(load())))
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(scrape)  # type: ignore[no-untyped-call]
        return generate_latest(scrape)
    return generate_latest(registry) + generate_latest(scrape)


class _Snapshot(Collector):
    def __init__(self, samples: list[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families: dict[str, GaugeMetricFamily] = {}
        for sample in self._samples:
            names = sorted(sample.labels)
            family = families.setdefault(sample.name, GaugeMetricFamily(sample.name, sample.help, labels=names))
            family.add_metric([sample.labels[name] for name in names], sample.value)
        yield from families.values()
