"""A consumer with the client that the first Log Store published, unchanged, reads from our broker what was stored."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.broker_fleet import OWNER, STREAM, Fleet, run_fleet
from tests.builders import a_key, a_record
from tests.clients_of_today import FOLDER, describe_chain, install
from validator.devnet.contracts import WEI
from validator.protocol.codec.frames import write_frame
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.model import ContentType, Record, SignatureType

PROGRAM = Path(__file__).with_name("query_of_today.mjs")
CONSUMER, PUBLISHER = a_key(5200), a_key(31)
COUNT, LAST = 30, 7
pytestmark = pytest.mark.timeout(300)  # npm takes its time on a busy machine


def make_records(first_ms: int) -> list[Record]:
    """Pairs of one time, as the clients of that time signed them; the last is newer than they can read."""
    old = [
        a_record(
            PUBLISHER,
            stream_id=STREAM,
            timestamp_ms=first_ms + 10 * (n // 2),
            sequence_number=n % 2,
            content=b'{"n":%d}' % n,
            signature_type=SignatureType.ECDSA_SECP256K1_LEGACY,
        )
        for n in range(COUNT)
    ]
    new = a_record(
        PUBLISHER,
        stream_id=STREAM,
        timestamp_ms=first_ms + 55,
        content=b"\xff",
        content_type=ContentType.BINARY,
        signature_type=SignatureType.ECDSA_SECP256K1_EVM,
    )
    return [*old, new]


@pytest.fixture(scope="module")
def fleet(anvil: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One broker, which wants a login and a balance."""
    with run_fleet(tmp_path_factory.mktemp("today"), anvil, [a_key(2)]) as fleet:
        fleet.chain.stake_consumers({CONSUMER.address: WEI, OWNER.address: WEI})
        yield fleet


def test_the_published_client_reads_and_verifies_last_from_and_range(anvil: str, fleet: Fleet) -> None:
    node, environment = install()
    (place,) = fleet.places
    place.settings["balance"] = True
    fleet.start(place)
    first_ms = time.time_ns() // 1_000_000 - 60_000
    records = make_records(first_ms)
    body = b"".join(write_frame(write_protobuf(record.message)) for record in records)
    path = f"/v1/streams/{quote(STREAM, safe='')}/partitions/0/messages"
    said = httpx.post(place.url + path, content=body, timeout=60, trust_env=False).json()
    assert said["stored"] == COUNT + 1, said
    to_ms = first_ms + 55
    settings = {
        **describe_chain(anvil, fleet.chain, CONSUMER),
        "streamId": STREAM,
        "last": LAST,
        "from": first_ms,
        "to": to_ms,
    }
    done = subprocess.run(
        [node, str(PROGRAM)],
        cwd=FOLDER,
        input=json.dumps(settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers: dict[str, Any] = json.loads(done.stdout)
    wanted = [_told(record) for record in records[:COUNT]]
    assert answers == {
        "last": wanted[-LAST:],
        "from": wanted,
        "range": [one for one in wanted if one[0] <= to_ms],
    }


def _told(record: Record) -> list[Any]:
    m = record.message
    return [m.timestamp_ms, m.sequence_number, f"0x{m.publisher_id.hex()}", json.loads(m.content)]
