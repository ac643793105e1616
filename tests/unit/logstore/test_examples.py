"""Every public method that does something shows how it is called, and a test runs what it shows."""

from __future__ import annotations

import inspect

import pytest

from logstore.asynchronous import AsyncNetwork
from logstore.store import LogStore
from tests.docstring_examples import AT_BROKERS, AT_CONTRACTS, AUDITED, DOCUMENTATION, OF_BUNDLES

WITHOUT = {"close", "signer_of"}
"""What a with block, and the package itself, call."""


def test_every_method_has_an_example_that_some_test_runs() -> None:
    methods = {name for name in DOCUMENTATION if inspect.isfunction(getattr(LogStore, name))}
    assert methods - WITHOUT == {*AT_BROKERS, *OF_BUNDLES, *AT_CONTRACTS, *AUDITED}
    assert [name for name in methods - WITHOUT if ">>> " not in DOCUMENTATION[name]] == []


METHODS = sorted({*AT_BROKERS, *OF_BUNDLES, *AT_CONTRACTS, *AUDITED} - {"publisher", "looks"})
"""With an event loop one message is published at a time, and a follower's looks are its own."""


@pytest.mark.parametrize("name", METHODS)
def test_with_an_event_loop_each_method_takes_the_same(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (LogStore, AsyncNetwork))
    if "options" in theirs:
        names = [each for each in theirs if each != "options"]
        assert names == list(ours)[: len(names)]
    else:
        assert theirs == ours
