"""``status``, ``window`` and ``report-issue`` over a listener of the test's own; a window that two saw otherwise."""

from __future__ import annotations

import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fakes.small_network import SmallNetwork, an_empty_database
from tests.fakes.world import GENESIS_MS
from tests.unit.server.test_operator import A, FakeView
from tests.unit.server.test_status_page import AROUND, CALM
from validator.cli import main
from validator.operations import issue, watching
from validator.protocol.errors import ConfigError
from validator.protocol.parameters import format_network
from validator.server.operator import status_data
from validator.store.view.status import Check

NOW_MS = 1_700_000_000_000


@contextmanager
def operator(answers: dict[str, Any]) -> Iterator[int]:
    """A listener that answers these paths; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0])
            data = json.dumps(found).encode()
            self.send_response(200 if found is not None else 503)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            """A test reads no log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with settings that hold secrets in every way."""
    (tmp_path / "n").mkdir()
    network = SmallNetwork(tmp_path / "n", an_empty_database(tmp_path), 1)
    (tmp_path / "network.toml").write_text(format_network(network.network))
    network.close()
    for name, value in {
        "NETWORK_FILE": tmp_path / "network.toml",
        "DATA_DIR": tmp_path / "data",
        "DATABASE_URL": "postgresql+psycopg://v:s3cret-db@127.0.0.1:9/v",
        "REDIS_URL": "redis://:s3cret-redis@127.0.0.1:9/0",
        "RPC_URLS": "http://127.0.0.1:9/v2/s3cret-rpc",
        "GATEWAY_URLS": "http://127.0.0.1:9/",
        "VOTING_KEY": "0x" + "5e" * 32,
    }.items():
        monkeypatch.setenv(f"LOGSTORE_{name}", str(value))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(words)
    said = capsys.readouterr()
    return status, said.out + said.err


@pytest.mark.parametrize(
    ("checks", "queues", "status", "begins"),
    [
        ([Check("database", True, "")], {"round": 0}, 0, "healthy: 3 of 3 members"),
        ([Check("database", True, "")], None, 1, "degraded: Redis does not answer"),
        ([Check("disk", False, "full")], {"round": 0}, 2, "not taking part: disk: full"),
    ],
)
def test_status_is_the_verdict_and_its_exit_status(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    checks: list[Check],
    queues: dict[str, int] | None,
    status: int,
    begins: str,
) -> None:
    around = replace(AROUND, queues=queues)
    seen = asdict(FakeView().load_participation(0))
    answers = {"/status.json": status_data(CALM, checks, around), "/participation.json": seen}
    with operator(answers) as port:
        monkeypatch.setenv("LOGSTORE_OPERATOR_PORT", str(port))
        ended, said = run(capsys, "status", "--since", "1h")
        assert ended == status
        assert said.startswith(begins)
        assert "peers    2 of 2 answer" in said
        assert "10 windows, 9 decided; 8 with our observation, 7 with our signature" in said
        assert json.loads(run(capsys, "status", "--json")[1])["network"] == "devnet"
        ended, said = run(capsys, "window", "show", "2000")
        assert ended == 0
        assert "state        open" in said
        assert run(capsys, "window", "show", "2001") == (
            2,
            "logstore-validator: no window starts at 2001; the newest are 2000\n",
        )


def test_a_server_that_does_not_answer_takes_no_part(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended, said = run(capsys, "status")
    assert (ended, said.count("\n")) == (2, 1)
    assert said.startswith("not taking part: the server does not answer: 127.0.0.1:7181")


def test_an_issue_s_archive_has_what_helps_and_no_secret(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended, said = run(capsys, "report-issue", "issue.tar.gz")
    assert ended == 0, said
    with tarfile.open("issue.tar.gz") as archive:
        parts = {entry.name: archive.extractfile(entry).read().decode() for entry in archive}  # type: ignore[union-attr]
    assert {name.rpartition("/")[2] for name in parts} == {
        "version.txt", "settings.txt", "network.toml", "check.txt", "status.json", "packages.txt",
    }  # fmt: skip
    whole = "".join(parts.values())
    assert "LOGSTORE_VOTING_KEY=(set)" in whole
    assert "celery==" in whole
    for secret in ("s3cret", "5e" * 32):
        assert secret not in whole
    assert run(capsys, "report-issue", "issue.tar.gz")[0] == 2


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("1h", NOW_MS - 3_600_000),
        ("-30min", NOW_MS - 1_800_000),
        ("5m", NOW_MS - 300_000),
        ("7 d", NOW_MS - 7 * 86_400_000),
        ("2023-11-14T22:00", 1_699_999_200_000),
        ("2023-11-14T23:00+01:00", 1_699_999_200_000),
    ],
)
def test_since_is_a_span_or_a_time(text: str, at_ms: int) -> None:
    assert watching.parse_since(text, NOW_MS) == at_ms


@pytest.mark.parametrize("text", ["", "yesterday", "1", "1w", "٣h"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--since"):
        watching.parse_since(text, NOW_MS)


def test_a_secret_in_a_setting_is_not_shown_and_a_place_is() -> None:
    given = {"LOGSTORE_GAS_KEY": "0x1", "LOGSTORE_GAS_KEY_FILE": "secrets/gas.json", "LOGSTORE_TICK_S": "5"}
    assert list(issue.describe_settings(given)) == [
        "LOGSTORE_GAS_KEY=(set)",
        "LOGSTORE_GAS_KEY_FILE=secrets/gas.json",
        "LOGSTORE_TICK_S=5",
    ]


def test_two_members_views_of_a_window_are_told_message_by_message(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    network = SmallNetwork(tmp_path / "two", an_empty_database(tmp_path), 4)
    try:
        first, second = network.members[:2]
        seen = network.world.publish(300, b"everybody")
        only = network.world.publish(400, b"only one broker has it", delays={0: 0})
        first.source.down.add(network.world.brokers[0])
        network.run_to_held()
        node: Any = SimpleNamespace(context=first.context, address=first.address)
        lines = list(watching.compare_window(node, GENESIS_MS, second.address))
        assert lines[0] == f"1 message here, 2 at 0x{second.address.hex()}"
        assert lines[1:3] == ["only here: 0", "only there: 1"]
        assert f"  {only.message.timestamp_ms}/" in lines[3]
        assert str(seen.message.timestamp_ms) not in lines[3]
        third: Any = SimpleNamespace(context=second.context, address=second.address)
        assert "the same messages" in list(watching.compare_window(third, GENESIS_MS, network.members[2].address))
        with pytest.raises(ConfigError, match="no observation of window"):
            list(watching.compare_window(node, GENESIS_MS, A))
    finally:
        network.close()
