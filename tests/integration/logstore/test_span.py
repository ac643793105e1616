"""logstore prove of a span, and verify of what it wrote: nothing left out, nothing added, and nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from logstore.stored_range import RangePart, StoredRange, decode_range, encode_range
from tests.builders import GENESIS_MS
from tests.integration.logstore.conftest import Run
from tests.stored_network import STREAMS, StoredNetwork
from validator.net.chain.bundles import AcceptedBundle, AcceptedBundles
from validator.protocol.model import Root
from validator.protocol.parameters import Network


def span(from_ms: int, to_ms: int) -> tuple[str, ...]:
    return ("--from", str(GENESIS_MS + from_ms), "--to", str(GENESIS_MS + to_ms))


def prove(run: Run, from_ms: int, to_ms: int, *more: str, stream: str = STREAMS[0]) -> Path:
    ran = run("prove", stream, *span(from_ms, to_ms), *more, "--json")
    assert ran.status == 0, ran.err
    return Path(ran.document["file"])


def sequences(run: Run, path: Path, *more: str) -> list[int]:
    ran = run("verify", path, *more, "--json")
    assert ran.status == 0, ran.err
    return [message["sequence_number"] for message in ran.document["messages"]]


def test_all_messages_of_a_span_are_proven_with_those_that_came_too_late(run: Run, tmp_path: Path) -> None:
    path = prove(run, 200, 5_000)
    ran = run("verify", path, "--json")
    assert (ran.status, ran.err) == (0, "")
    said = ran.document
    assert [message["sequence_number"] for message in said["messages"]] == [2, 4, 6, 60, 8, 31]
    assert (said["bundles"], said["contract"]) == ([0, 1, 2], {"final": True})
    assert said["proves"].startswith(f"the 6 messages are all of {STREAMS[0]}/0 from 2023-11-14T22:13:20.200Z to ")
    assert said["proves"].endswith("whose roots the contract holds")
    assert said["leaves_open"] == "what came too late and will lie in bundles to come"
    held = sorted(file.name.partition("-")[0] for file in tmp_path.glob("cache/*/bundles/*"))
    assert held == ["0", "2"], "of bundle 1, where nothing is of this span, the manifest is enough"
    assert "verified\n" in run("verify", path).out


@pytest.mark.parametrize(
    ("stream", "partition", "from_ms", "to_ms"),
    [
        (STREAMS[0], 0, 201, 399),
        (STREAMS[0], 0, 16_000, 24_000),
        (STREAMS[0], 7, 0, 24_000),
        (STREAMS[1], 0, 8_000, 16_000),
        ("0x7e5f4552091a69125d5dfcb7b8c2659029395bdf/zzz", 0, -60_000, 24_000),
        ("a", 0, 0, 1),
    ],
)
def test_that_there_is_nothing_is_proven_too(run: Run, stream: str, partition: int, from_ms: int, to_ms: int) -> None:
    path = prove(run, from_ms, to_ms, "--partition", str(partition), stream=stream)
    said = run("verify", path, "--json").document
    assert said["messages"] == []
    assert said["proves"].startswith(f"there is nothing of {stream}/{partition} from ")


def test_offline_a_span_is_worth_what_its_roots_are(
    stored: StoredNetwork, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = prove(run, 0, 1_000)
    monkeypatch.setenv("LOGSTORE_RPC_URLS", "http://127.0.0.1:1")
    said = run("verify", path, "--offline", "--json").document
    assert "if the roots are theirs" in said["proves"]
    assert "whether the contract holds these roots" in said["leaves_open"]
    assert "whether a late set is missing" in said["leaves_open"]
    roots = [word for root in stored.roots for word in ("--root", root.hex())]
    said = run("verify", path, "--offline", *roots, "--json").document
    assert said["leaves_open"] == "whether a late set is missing: only the contract knows"
    ran = run("verify", path, "--offline", *roots[:4], "--json")
    assert (ran.status, ran.document["field"]) == (1, "root")
    monkeypatch.delenv("LOGSTORE_NETWORK_FILE")
    said = run("verify", path, "--offline", "--json").document
    assert said["leaves_open"].startswith("whether a window is missing: name the network's file; ")


def test_a_later_late_set_that_the_file_cannot_have_is_left_open(run: Run) -> None:
    path = prove(run, 0, 1_000)
    stored = decode_range(path.read_bytes())
    path.write_bytes(encode_range(replace(stored, parts=stored.parts[:-1])))
    said = run("verify", path, "--json").document
    assert [message["sequence_number"] for message in said["messages"]] == [0, 2, 4, 6, 8], "without the late one"
    assert said["leaves_open"] == "what came too late and lies in bundles 2 to 2, newer than this file"


def changed_part(stored: StoredRange, index: int, change: Callable[[RangePart], RangePart]) -> StoredRange:
    parts = list(stored.parts)
    parts[index] = change(parts[index])
    return replace(stored, parts=tuple(parts))


def altered(stored: StoredRange) -> dict[str, tuple[str, StoredRange]]:
    """The file with one thing changed, and the field at which it must be refused. Parts: a window, three late sets."""
    window, first, second, third = stored.parts
    return {
        "a message left out": (
            "proof.after",
            changed_part(stored, 0, lambda p: replace(p, messages=(*p.messages[:2], *p.messages[3:]))),
        ),
        "a message twice": (
            "proof.after",
            changed_part(stored, 0, lambda p: replace(p, messages=(p.messages[0], *p.messages))),
        ),
        "two in another order": (
            "proof.anchor",
            changed_part(stored, 0, lambda p: replace(p, messages=p.messages[::-1])),
        ),
        "the window": ("parts", replace(stored, parts=(first, second, third))),
        "the window twice": ("parts", replace(stored, parts=(window, window, first, second, third))),
        "a late set": ("parts", replace(stored, parts=(window, first, third))),
        "all late sets": ("parts", replace(stored, parts=(window,))),
        "a longer span": ("parts", replace(stored, until_ms=stored.until_ms + 4_000)),
        "a span that begins earlier": ("parts", replace(stored, from_ms=0, until_ms=GENESIS_MS + 4_001)),
        "another partition": ("proof.messages", replace(stored, part=(stored.part[0], 1))),
        "another stream": ("proof.messages", replace(stored, part=(STREAMS[1], 0))),
        "another chain": ("chain_id", replace(stored, chain_id=5)),
        "another root": ("proof.anchor", changed_part(stored, 1, lambda p: replace(p, root=Root(bytes(32))))),
        "another bundle": ("number", changed_part(stored, 1, lambda p: replace(p, number=2))),
        "a window of another bundle": ("root", changed_part(stored, 0, lambda p: replace(p, number=1))),
        "a proof of another part": (
            "proof.window.instance",
            changed_part(stored, 1, lambda p: replace(p, proof=second.proof)),
        ),
    }


def test_a_span_altered_anywhere_is_refused_by_the_field_that_differs(run: Run, tmp_path: Path) -> None:
    stored = decode_range(prove(run, 0, 4_000).read_bytes())
    assert [str(part.instance) for part in stored.parts] == [f"window:{GENESIS_MS}", "late:0", "late:1", "late:2"]
    path = tmp_path / "altered.proof"
    said = {}
    for what, (_, changed) in altered(stored).items():
        path.write_bytes(encode_range(changed))
        ran = run("verify", path, "--json")
        assert ran.status == 1, what
        said[what] = ran.document["field"]
    expected = {what: field for what, (field, _) in altered(stored).items()}
    assert said == expected


def test_every_flipped_byte_of_a_span_is_refused(run: Run, tmp_path: Path) -> None:
    good = prove(run, 0, 400).read_bytes()
    path = tmp_path / "flipped.proof"
    for at in range(20, len(good), 61):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert run("verify", path).status == 1, f"byte {at}"
    path.write_bytes(good[:-1])
    assert run("verify", path, "--offline").status == 1


@pytest.mark.parametrize(
    ("words", "status", "named"),
    [
        ([STREAMS[0]], 2, "name times of messages, or a span"),
        ([STREAMS[0], str(GENESIS_MS), *span(0, 1)], 2, "name no times"),
        ([STREAMS[0], *span(0, 1), "--sequence", "3"], 2, "name no times"),
        ([STREAMS[0], *span(1, 0)], 2, "not before --to"),
        ([STREAMS[0], *span(-10, -5)], 2, "the network began at 2023-11-14T22:13:20Z"),
        ([STREAMS[0], *span(0, 24_001)], 3, "stored until 2023-11-14T22:13:44Z"),
        ([STREAMS[0], "--from", "-1d"], 3, "stored until 2023-11-14T22:13:44Z"),
    ],
)
def test_what_cannot_be_proven_is_told_in_one_line(run: Run, words: list[str], status: int, named: str) -> None:
    ran = run("prove", *words)
    assert (ran.status, ran.out, ran.err.count("\n")) == (status, "", 1)
    assert named in ran.err


class FakeReports(AcceptedBundles):
    """Bundles of two windows each, as many as are said."""

    def __init__(self, network: Network, count: int) -> None:
        super().__init__(None, network)  # type: ignore[arg-type]
        self._step_ms = 2 * network.sets[0].window_ms
        self._count = count

    @property
    def count(self) -> int:
        return self._count

    def find(self, from_ms: int, to_ms: int) -> range:
        return range((from_ms - GENESIS_MS) // self._step_ms, -(-(to_ms - GENESIS_MS) // self._step_ms))

    def fetch_many(self, first: int, end: int) -> list[AcceptedBundle]:
        starts = [(number, GENESIS_MS + number * self._step_ms) for number in range(first, min(end, self._count))]
        return [
            AcceptedBundle(number, Root(bytes(32)), None, ms, ms + self._step_ms, 1, True)  # type: ignore[arg-type]
            for number, ms in starts
        ]


def test_late_sets_are_looked_through_as_far_as_they_reach_back(stored: StoredNetwork) -> None:
    network = stored.network
    step_ms = 2 * network.sets[0].window_ms
    reaching = -(-network.sets[0].late_reach_ms // step_ms)
    for first in (0, 5):
        at_ms = GENESIS_MS + first * step_ms
        found = FakeReports(network, 1_000).late_numbers(at_ms, at_ms + step_ms)
        assert found == (range(first, first + reaching), True)
    assert FakeReports(network, 9).late_numbers(GENESIS_MS, GENESIS_MS + 1) == (range(9), False)
