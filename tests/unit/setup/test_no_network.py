"""Unit and property tests cannot reach a network, not by accident either."""

from __future__ import annotations

import asyncio
import socket

import pytest


def test_connecting_is_refused_in_unit_tests() -> None:
    with socket.socket() as probe, pytest.raises(AssertionError, match="use no sockets"):
        probe.connect(("127.0.0.1", 9))


def test_listening_is_refused_in_unit_tests() -> None:
    with socket.socket() as probe, pytest.raises(AssertionError, match="use no sockets"):
        probe.bind(("127.0.0.1", 0))


def test_looking_up_a_name_is_refused_in_unit_tests() -> None:
    with pytest.raises(AssertionError, match="use no sockets"):
        socket.getaddrinfo("example.invalid", 80)


def test_an_event_loop_still_runs() -> None:
    assert asyncio.run(asyncio.sleep(0, "done")) == "done"
