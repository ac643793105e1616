"""Evidence against brokers: bounded, read back after a restart, and to be had at a path of its own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.asgi import AsgiClient
from validator.broker.evidence import KEPT, Evidence, EvidenceBook, FolderShelf, Lie, decode_evidence
from validator.broker.operator import create_app
from validator.protocol.codec import cbor
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address

LIAR = Address(b"\x07" * 20)


def a_piece(number: int, lie: Lie = Lie.FORGED) -> Evidence:
    return Evidence(LIAR, lie, f"no. {number}", 1_000 + number, (b"word", b"%d" % number), (b"proof",))


def test_a_restart_finds_the_newest_of_each_lie_and_counts_on(tmp_path: Path) -> None:
    book = EvidenceBook(FolderShelf(tmp_path))
    for number in range(KEPT + 4):
        book.add(a_piece(number))
    book.add(a_piece(99, Lie.WITHHELD))
    (tmp_path / "torn.cbor").write_bytes(a_piece(1).encode()[:-1])
    again = EvidenceBook(FolderShelf(tmp_path))
    assert list(again.all()) == list(book.all()) == [a_piece(99, Lie.WITHHELD), *map(a_piece, range(KEPT + 3, 3, -1))]
    assert again.counts == {(LIAR, Lie.FORGED): KEPT, (LIAR, Lie.WITHHELD): 1}
    again.add(a_piece(200))
    assert len(list(tmp_path.glob("0x*.cbor"))) == KEPT + 1
    assert (tmp_path / "torn.cbor").exists()


@pytest.mark.parametrize(
    ("at", "value", "field"),
    [
        (0, b"short", "broker"),
        (1, "untidy", "lie"),
        (2, b"bytes", "detail"),
        (4, [b"w"] * 17, "words"),
        (4, 3, "words"),
    ],
)
def test_what_is_no_evidence_is_refused_by_its_field(at: int, value: Any, field: str) -> None:
    fields: list[Any] = [LIAR, "forged", "", 1, [], []]
    assert decode_evidence(cbor.encode_object("broker-evidence/1", *fields)) == Evidence(LIAR, Lie.FORGED, "", 1)
    fields[at] = value
    with pytest.raises(MalformedInput) as refused:
        decode_evidence(cbor.encode_object("broker-evidence/1", *fields))
    assert refused.value.field == f"evidence.{field}"


def test_the_operator_hands_evidence_on(tmp_path: Path) -> None:
    book = EvidenceBook(FolderShelf(tmp_path))
    book.add(a_piece(1))
    view: Any = SimpleNamespace(neighbours=SimpleNamespace(book=book))
    client = AsgiClient(create_app(view))
    (told,) = client.get("/evidence.json").json()
    assert (told["broker"], told["lie"], told["words"]) == ("0x" + LIAR.hex(), "forged", 2)
    assert decode_evidence(client.get(told["path"]).content) == a_piece(1)
    assert client.get("/evidence/0x07-forged-none.cbor").status_code == 404
