"""Every public method that does something shows how it is called, and a test runs what it shows."""

from __future__ import annotations

import inspect

from logstore.store import LogStore
from tests.docstring_examples import AT_BROKERS, AT_CONTRACTS, AUDITED, DOCUMENTATION, OF_BUNDLES

WITHOUT = {"close", "signer_of"}
"""What a with block, and the package itself, call."""


def test_every_method_has_an_example_that_some_test_runs() -> None:
    methods = {name for name in DOCUMENTATION if inspect.isfunction(getattr(LogStore, name))}
    assert methods - WITHOUT == {*AT_BROKERS, *OF_BUNDLES, *AT_CONTRACTS, *AUDITED}
    assert [name for name in methods - WITHOUT if ">>> " not in DOCUMENTATION[name]] == []
