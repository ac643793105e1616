"""What a command shows to people, to pipes and to programs."""

from __future__ import annotations

import io
import json

from logstore.commands.verify_proof import MAX_SHOWN, show_content, show_publisher
from logstore.output import Output, count_of, quiet


def test_a_document_goes_to_standard_output_as_one_line_of_json() -> None:
    out, err = io.StringIO(), io.StringIO()
    Output(as_json=True, out=out, err=err).document({"a": "ä"}, lambda o: o.line("for people"))
    assert (out.getvalue(), err.getvalue()) == ('{"a": "ä"}\n', "")
    assert json.loads(out.getvalue()) == {"a": "ä"}


def test_a_pipe_gets_neither_colour_nor_progress_nor_a_cut_cell() -> None:
    out, err = io.StringIO(), io.StringIO()
    output = Output(as_json=False, out=out, err=err)
    with output.progress("downloading") as progress, output.busy("thinking"):
        progress(1, 2)
        assert progress is quiet
    output.table(("name", "value"), [("x" * 100, 7)], numbers=("value",))
    assert "x" * 100 in out.getvalue()
    assert "\x1b" not in out.getvalue()
    assert err.getvalue() == ""


def test_what_a_terminal_would_obey_is_written_out() -> None:
    out = io.StringIO()
    output = Output(as_json=False, out=out)
    output.pairs([("stream", "a\x1b[2Jb\n")])
    output.table(("stream",), [("\x1b]0;title\x07",)])
    assert "a\\x1b[2Jb\\n" in out.getvalue()
    assert "\x1b" not in out.getvalue()
    assert "\x07" not in out.getvalue()


def test_contents_are_text_where_they_are_and_cut_where_they_are_long() -> None:
    assert show_content(b'{"a":1}') == '{"a":1}'
    assert show_content(b"\xff\x00") == "0xff00"
    assert show_content(b"x" * 1_000) == "x" * MAX_SHOWN + "… (1000 bytes)"


def test_a_publishers_key_of_thousands_of_digits_does_not_flood_what_is_shown() -> None:
    assert show_publisher(b"\xab" * 20) == "0x" + "ab" * 20
    shown = show_publisher(bytes(2_592))
    assert (len(shown), shown[:6], shown[-1]) == (MAX_SHOWN, "key:00", "…")


def test_one_thing_is_not_many() -> None:
    assert [count_of(n, "proof") for n in (0, 1, 2)] == ["0 proofs", "1 proof", "2 proofs"]
