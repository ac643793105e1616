"""What the consumer's package brings with it, asked of a process that has just imported it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.paths import ROOT

NEVER = ("celery", "sqlalchemy", "web3", "kombu", "redis", "alembic", "pydantic_settings")
LATE = ("pyarrow", "duckdb", "httpx", "eth_abi", "rich.table", "cryptography", "arweave")


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"],
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    ["import logstore", "import logstore.cli", "from logstore import cli\ncli.main(['bundle', 'list', '--help'])"],
)
def test_package_and_help_wait_for_no_library_that_they_do_not_use(code: str) -> None:
    assert sorted(modules_after(code) & {*NEVER, *LATE}) == []


def test_reading_chain_and_gateways_needs_no_task_queue_database_or_web3() -> None:
    code = "import logstore.bundles, logstore.reports, logstore.verification, validator.net.arweave.storage"
    assert sorted(modules_after(code) & set(NEVER)) == []
