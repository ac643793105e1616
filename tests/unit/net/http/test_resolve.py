from __future__ import annotations

import ipaddress
import threading

import pytest

from validator.net.http.resolve import resolve
from validator.net.http.urls import ParsedUrl
from validator.protocol.errors import MalformedInput, TransientError

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]

URL = ParsedUrl("https", "a.example", 443, "")


def test_one_private_address_among_the_answers_refuses_the_name() -> None:
    with pytest.raises(MalformedInput, match=r"192\.168\.0\.1"):
        resolve(URL, resolver=lambda host, port: ["8.8.8.8", "192.168.0.1"])


def test_all_answers_are_kept_in_order_and_once() -> None:
    found = resolve(URL, resolver=lambda host, port: ["2606:4700::1", "8.8.8.8", "8.8.8.8"])
    assert [str(a) for a in found] == ["2606:4700::1", "8.8.8.8"]


def test_a_literal_address_is_never_looked_up() -> None:
    def never(host: str, port: int) -> list[str]:
        raise AssertionError("looked up")

    assert [str(a) for a in resolve(ParsedUrl("https", "8.8.8.8", 443, ""), resolver=never)] == ["8.8.8.8"]


@pytest.mark.parametrize("failure", [OSError("no such host"), UnicodeError("label too long")])
def test_a_name_without_an_answer_may_have_one_later(failure: Exception) -> None:
    def fail(host: str, port: int) -> list[str]:
        raise failure

    with pytest.raises(TransientError, match=r"a\.example"):
        resolve(URL, resolver=fail)
    with pytest.raises(TransientError, match="no address"):
        resolve(URL, resolver=lambda host, port: [])


def test_a_look_up_that_hangs_is_left_behind() -> None:
    release = threading.Event()

    def hang(host: str, port: int) -> list[str]:
        release.wait(30)
        return []

    with pytest.raises(TransientError, match="longer"):
        resolve(URL, resolver=hang, timeout_s=0.05)
    release.set()


# --- decompression --------------------------------------------------------------------------------
