"""Whatever a stranger may have written is stored, on both engines: ids come back exactly, words for people readably."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from tests.stored_events import load_events
from validator.protocol.model import Address, Block, Digest, Window
from validator.store.database import Database, downgrade, migrate, open_database
from validator.store.facade import SqlStore

BROKER = Address(b"\x0b" * 20)
ODD_IDS = frozenset(
    {
        "0x" + "ab" * 20 + "/temperature\x00room",
        "\x00",
        "\x00" * 256,
        "a\x00",
        "a",
        "a\n\t\x7f\x1b[2J",
        "データ.eth/\U0010ffff\ufffe\ufeff",
        "😀" * 64,
        "\\u0000",
        "ä",
        "a\u0308",
        "%s'\";--",
    }
)


@pytest.fixture
def open_window(store: SqlStore) -> int:
    store.windows.open_window(Window(1_000, 2_000), 0)
    return 1_000


def test_the_list_of_stores_takes_any_stream_id(store: SqlStore) -> None:
    store.chain.save_stores(7, ODD_IDS)
    store.chain.save_stores(8, ODD_IDS | {"more"})
    assert store.chain.load_stores() == (8, ODD_IDS | {"more"})


def test_permissions_of_any_stream_and_publisher_are_kept_apart(store: SqlStore) -> None:
    block = Digest(b"\x01" * 32)
    keys = [
        (stream, who) for stream in ODD_IDS for who in (b"", b"\x00", b"\xff" * 20, b"\x05" * 2592, b"\x05" * 70_000)
    ]
    answers = {key: number % 2 == 0 for number, key in enumerate(keys)}
    store.chain.save_permissions(block, answers)
    assert {key: store.chain.load_permission(block, *key) for key in keys} == answers


def test_etags_are_kept_by_any_stream_id_and_a_strange_one_is_no_fault(store: SqlStore, open_window: int) -> None:
    tags = {(BROKER, (stream, 99)): f'"{number}"' for number, stream in enumerate(sorted(ODD_IDS))}
    store.windows.save_etags(open_window, tags)
    assert store.windows.load_etags(open_window) == tags
    store.windows.save_etags(open_window, {(BROKER, ("a", 0)): '"\x00\udcff"'})
    assert store.windows.load_etags(open_window)[BROKER, ("a", 0)] == '"\\u0000\\udcff"'


@pytest.mark.parametrize("detail", ["stream \x00 \ud800 \udfff ä 😀", "\x00" * 300, "\\u0000"])
def test_the_detail_of_a_refusal_may_quote_what_was_refused(
    store: SqlStore, database: Database, open_window: int, detail: str
) -> None:
    store.windows.save_rejections(open_window, [(b"\x02" * 32, "malformed", BROKER, detail)])
    with database.read() as connection:
        (kept,) = connection.scalars(text("SELECT detail FROM rejections")).all()
    assert kept == "".join(f"\\u{ord(c):04x}" if c == "\x00" or "\ud800" <= c <= "\udfff" else c for c in detail)


def test_warnings_and_reasons_may_quote_anything(store: SqlStore) -> None:
    store.events.save_event("warning", "odd", {"stream": "a\x00b\ud800", "detail": ["\x00"]})
    (event,) = load_events(store.database, levels=("warning",))
    assert event.fields["stream"] == "a\x00b\ud800"


def test_the_last_number_of_a_column_is_kept(store: SqlStore) -> None:
    block = Block(2**63 - 1, Digest(b"\x03" * 32), (2**53 - 1) // 1000)
    store.chain.save_head(block, block)
    store.chain.save_block(block.timestamp_s, block)
    assert store.chain.load_head() == (block, block)
    assert store.chain.load_block(block.timestamp_s) == block


def test_ids_that_were_kept_as_text_are_taken_over_and_back(empty_url: str) -> None:
    migrate(empty_url, "0001")
    database = open_database(empty_url)
    with database.write() as connection:
        connection.execute(text("INSERT INTO store_index VALUES ('0xab/ü'), ('b')"))
    migrate(empty_url, "0002")
    with database.write() as connection:
        kept = connection.scalars(text("SELECT stream_id FROM store_index")).all()
        assert {bytes(stream_id) for stream_id in kept} == {"0xab/ü".encode(), b"b"}
        connection.execute(text("INSERT INTO store_index VALUES (:odd)"), {"odd": b"c\x00"})
    downgrade(empty_url, "0001")
    with database.read() as connection:
        assert set(connection.scalars(text("SELECT stream_id FROM store_index"))) == {"0xab/ü", "b"}
    database.close()
