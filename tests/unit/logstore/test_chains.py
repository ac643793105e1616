"""Message chains: they go on after a restart, no id comes twice, and late data has chains of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from logstore.chains import Chains
from tests.builders import a_key
from validator.protocol.errors import ConfigError
from validator.protocol.model import MessageRef

ADDRESS = a_key(3).address
PART = ("0x/sensors", 0)


def test_a_chain_goes_on_after_a_restart_and_names_its_last_message(tmp_path: Path) -> None:
    chains = Chains(tmp_path, ADDRESS)
    first, place, before = chains.next(PART, 1_000, is_late=False)
    assert (place, before) == (MessageRef(1_000, 0), None)
    assert chains.next(PART, 1_000, is_late=False) == (first, MessageRef(1_000, 1), MessageRef(1_000, 0))
    chains.save()
    chains.close()
    again = Chains(tmp_path, ADDRESS)
    assert again.next(PART, 990, is_late=False) == (first, MessageRef(1_000, 2), MessageRef(1_000, 1))
    assert again.next(PART, 1_001, is_late=False) == (first, MessageRef(1_001, 0), MessageRef(1_000, 2))
    other, place, before = again.next((PART[0], 1), 5, is_late=False)
    assert (other != first, place, before) == (True, MessageRef(5, 0), None)
    again.close()


def test_two_programs_with_one_key_never_share_a_chain(tmp_path: Path) -> None:
    one, two = Chains(tmp_path, ADDRESS), Chains(tmp_path, ADDRESS)
    assert one.path != two.path
    assert one.next(PART, 1, is_late=False)[0] != two.next(PART, 1, is_late=False)[0]
    one.close()
    assert Chains(tmp_path, ADDRESS).path == one.path


def test_late_data_has_chains_of_its_own_that_only_go_forwards(tmp_path: Path) -> None:
    chains = Chains(tmp_path, ADDRESS)
    now = chains.next(PART, 10_000, is_late=False)[0]
    late, place, before = chains.next(PART, 500, is_late=True)
    assert (late != now, place, before) == (True, MessageRef(500, 0), None)
    assert chains.next(PART, 600, is_late=True) == (late, MessageRef(600, 0), MessageRef(500, 0))
    older, place, before = chains.next(PART, 400, is_late=True)
    assert (older not in (late, now), place, before) == (True, MessageRef(400, 0), None)
    assert chains.next(PART, 10_001, is_late=False) == (now, MessageRef(10_001, 0), MessageRef(10_000, 0))


def test_a_message_from_the_future_does_not_bind_those_of_the_present(tmp_path: Path) -> None:
    chains = Chains(tmp_path, ADDRESS)
    future = chains.next(PART, 90_000, is_late=True)[0]
    chain, place, before = chains.next(PART, 1_000, is_late=False)
    assert (chain != future, place, before) == (True, MessageRef(1_000, 0), None)


@pytest.mark.parametrize("text", ["", "[]", '{"a#0":{"chain":5}}', "{"])
def test_a_file_that_was_spoilt_begins_chains_anew(tmp_path: Path, text: str) -> None:
    chains = Chains(tmp_path, ADDRESS)
    chains.next(PART, 1, is_late=False)
    chains.save()
    assert json.loads(chains.path.read_bytes())["0x/sensors#0"]["timestamp"] == 1
    chains.close()
    chains.path.write_text(text)
    assert Chains(tmp_path, ADDRESS).next(PART, 1, is_late=False)[1:] == (MessageRef(1, 0), None)


def test_a_folder_that_cannot_be_written_has_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="LOGSTORE_STATE_DIR"):
        Chains(tmp_path / "file" / "below", ADDRESS)
