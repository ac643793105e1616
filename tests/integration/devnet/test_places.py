"""Ports that are a process's own before it runs, and refuse whoever comes too early."""

from __future__ import annotations

import os
import socket

import pytest

from validator.devnet.places import Doors


def knock(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10):
        pass


def test_a_port_is_its_process_s_own_and_refuses_connections_until_that_listens() -> None:
    doors = Doors.reserve()
    for _start in range(2):  # and when it is started again
        with pytest.raises(ConnectionRefusedError):
            knock(doors.public)
        with doors.handed_down() as (public, _operator), socket.socket(fileno=os.dup(public)) as inherited:
            with pytest.raises(ConnectionRefusedError):
                knock(doors.public)
            inherited.listen()
            knock(doors.public)
            with socket.create_connection(("127.0.0.1", doors.public), timeout=10):
                accepted, _ = inherited.accept()
                accepted.close()  # first, so that its port rests while the next process starts


def test_no_port_is_given_twice() -> None:
    doors = [Doors.reserve() for _ in range(40)]
    assert len({port for each in doors for port in (each.public, each.operator)}) == 80
