"""What one sees: texts from outside are harmless, every change is one line, the table holds what validators say."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from validator.devnet.display import Display, clean
from validator.devnet.plan import Options
from validator.devnet.progress import Progress

GENESIS = 1_700_000_000_000
MEMBERS = {f"0x{n:040x}": f"validator-{n}" for n in range(1, 5)}


def a_status(**changes: Any) -> dict[str, Any]:
    status = {
        "windows": [
            {
                "start_ms": GENESIS,
                "state": "observed",
                "round": 1,
                "leader": f"0x{2:040x}",
                "votes": {"observation": 4, "prevote": 3, "precommit": 0},
                "waits_for": "a quorum of precommits",
            }
        ],
        "late": [],
        "bundles": [],
        "reports": [],
    }
    return {**status, **changes}


def a_progress(**changes: Any) -> Progress:
    return Progress(Options(windows=2, **changes), GENESIS, MEMBERS)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines", "two\\x0alines"),
        ("right\u202eleft", "right\\u202eleft"),
        ("\U000e0001", "\\U000e0001"),
        ("東京 [b]bold[/b]", "東京 [b]bold[/b]"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_long_texts_are_cut() -> None:
    assert clean("x" * 500, 10) == "x" * 9 + "…"


def test_a_change_on_a_pipe_is_one_line() -> None:
    stream = io.StringIO()
    with Display(stream) as display:
        display.change("window 1 \x1b[2J agreed\nand more")
        display.show(a_progress())
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert "\\x1b[2J agreed\\x0aand more" in stream.getvalue()


def test_the_live_table_shows_foreign_text_without_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    stream = io.StringIO()
    progress = a_progress()
    window = {**a_status()["windows"][0], "state": "[b]x[/b]\x1b", "leader": "[red]n[/red]"}
    progress.take_in({"validator-1": a_status(windows=[window])}, GENESIS + 1, 1.0)
    with Display(stream, is_live=True) as display:
        display.show(progress)
        display.say("[link=x]line[/link]\x07")
    shown = stream.getvalue()
    assert "[b]x[/b]\\x1b" in shown
    assert "[red]n[/red]" in shown
    assert "[link=x]line[/link]\\x07" in shown
    assert "\x1b " not in shown


def test_one_of_a_thing_is_said_without_an_s() -> None:
    progress = a_progress(validators=1, keep=True)
    progress.take_in({"validator-1": a_status(bundles=[{"number": 0, "state": "final"}])}, GENESIS, 1.0)
    assert progress.headline() == "window 0 · 1 report final · 1 validator"


def test_each_state_of_each_thing_is_said_once() -> None:
    progress = a_progress()
    statuses = {"validator-1": a_status(), "validator-2": a_status()}
    assert progress.take_in(statuses, GENESIS, 1.0) == ["window 0 observed, first at validator-1"]
    assert progress.take_in(statuses, GENESIS, 2.0) == []
    agreed = {**a_status()["windows"][0], "state": "agreed"}
    assert progress.take_in({"validator-2": a_status(windows=[agreed])}, GENESIS, 3.0) == [
        "window 0 agreed (round 1, leader v2), first at validator-2"
    ]


def test_only_a_changed_state_counts_as_motion() -> None:
    progress = a_progress()
    progress.take_in({"validator-1": a_status()}, GENESIS, 10.0)
    more_votes = {**a_status()["windows"][0], "round": 7, "votes": {"prevote": 4}}
    progress.take_in({"validator-1": a_status(windows=[more_votes])}, GENESIS, 50.0)
    assert progress.changed_s == 10.0
    held = {**a_status()["windows"][0], "state": "held"}
    progress.take_in({"validator-1": a_status(windows=[held])}, GENESIS, 60.0)
    assert progress.changed_s == 60.0


def test_the_run_is_done_when_everybody_has_the_last_report_as_final() -> None:
    progress = a_progress()
    final = a_status(bundles=[{"number": 1, "epoch": 1, "state": "final"}])
    for number in (1, 2, 3):
        progress.take_in({f"validator-{number}": final}, GENESIS, 1.0)
        assert not progress.is_done(float(number))
    progress.take_in({"validator-4": final}, GENESIS, 4.0)
    assert progress.is_done(4.0)


def test_one_that_lags_behind_a_quorum_is_not_waited_for_without_end() -> None:
    progress = a_progress()
    final = a_status(bundles=[{"number": 1, "epoch": 1, "state": "final"}])
    progress.take_in({f"validator-{n}": final for n in (1, 2, 3)}, GENESIS, 1.0)
    assert not progress.is_done(5.0)
    assert not progress.is_done(30.0)
    assert progress.is_done(36.0)


def test_another_epochs_final_bundle_ends_nothing() -> None:
    progress = a_progress()
    first = a_status(bundles=[{"number": 1, "epoch": 0, "state": "final"}, {"number": 0, "epoch": 0, "state": "final"}])
    progress.take_in(dict.fromkeys(MEMBERS.values(), first), GENESIS, 1.0)
    assert not progress.is_done(100.0)


def test_what_a_stuck_run_waits_for_is_told_per_validator() -> None:
    progress = a_progress()
    waiting = {"validator-1": a_status(), "validator-2": a_status(), "validator-3": a_status(windows=[])}
    progress.take_in(waiting, GENESIS, 1.0)
    assert progress.describe_wait() == (
        "window 0: a quorum of precommits (validator-1, validator-2); "
        "bundle -1 not begun (validator-3); no answer (validator-4)"
    )


def test_a_status_with_nonsense_in_it_breaks_nothing() -> None:
    progress = a_progress()
    nonsense: dict[str, Any] = {
        "windows": [None, 7, {"start_ms": "x", "state": 3, "votes": [], "leader": 9}],
        "bundles": {"a": 1},
        "late": "late",
        "reports": [{"number": True, "signers": 4}],
    }
    progress.take_in({"validator-1": nonsense}, GENESIS, 1.0)
    assert progress.window_rows()
    assert progress.bundle_rows() == []
    assert not progress.is_done(1.0)


def test_the_bundle_table_shows_upload_and_signers() -> None:
    progress = a_progress()
    bundle = {
        "number": 0,
        "epoch": 0,
        "state": "verified",
        "uploads": [{"storage_id": "AbCdEfGhIj", "by": f"0x{3:040x}", "state": "seeded", "own": False}],
    }
    report = {"number": 0, "state": "attested", "signers": ["a", "b", "c"]}
    progress.take_in({"validator-1": a_status(bundles=[bundle], reports=[report])}, GENESIS, 1.0)
    row = ["0", "AbCdEfGh by v3", "attested (3)", "verified", "", "", ""]
    assert progress.bundle_rows() == [row]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("count", [4, 7])
def test_the_live_table_fits_eighty_columns_in_colour_and_explains_itself(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("COLUMNS", "80"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    members = {f"0x{n:040x}": f"validator-{n}" for n in range(1, count + 1)}
    progress = Progress(Options(windows=2, validators=count), GENESIS, members)
    upload = {"storage_id": "AbCdEfGhIj", "by": f"0x{3:040x}", "state": "seeded", "own": False}
    bundle = {"number": 0, "epoch": 0, "state": "verified", "uploads": [upload]}
    report = {"number": 0, "state": "submitted", "signers": ["a", "b", "c"]}
    held = {**a_status()["windows"][0], "start_ms": GENESIS, "state": "held"}
    collected = {**held, "start_ms": GENESIS + progress.options.window_ms, "state": "collected"}
    status = a_status(windows=[held, collected], bundles=[bundle], reports=[report])
    progress.take_in(dict.fromkeys(members.values(), status), GENESIS + 1, 1.0)
    stream = Terminal()
    with Display(stream) as display:
        display.change("window 1 " + "x" * 100)
        display.show(progress)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert max(map(len, shown.splitlines())) <= 80
    words = ("held", "collected", "verified") if count == 4 else ("hel held", "col collected", "ver verified")
    assert all(word in shown for word in (*words, "submitted (3)", "votes: observations", "done", "under way"))
    assert "\x1b[32m" + words[0][: 4 if count == 4 else 3] in stream.getvalue()
    assert "\x1b[33m" + words[1][: 9 if count == 4 else 3] in stream.getvalue()
