"""Examples in the docstrings of ``LogStore``, run as they stand: each where a test has what it needs."""

from __future__ import annotations

import doctest
import inspect
from typing import Any

from logstore.store import LogStore

AT_BROKERS = ("follow", "looks", "query", "publish", "publisher")
"""Run by tests/integration/logstore/test_recipes.py."""
OF_BUNDLES = ("prove", "verify", "sql")
"""By test_prove.py."""
AT_CONTRACTS = ("mint", "create_stream", "stake", "permit", "stream", "balance", "withdraw")
"""By test_money.py."""
AUDITED = ("audit",)
"""By test_query.py."""
DOCUMENTATION = {name: inspect.getdoc(getattr(LogStore, name)) or "" for name in dir(LogStore) if name[0] != "_"}
"""As it is before a test puts something else in a method's place."""


def run_examples(names: tuple[str, ...], **given: Any) -> None:
    """With these names, one method after the other."""
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for name in names:
        example = doctest.DocTestParser().get_doctest(DOCUMENTATION[name], dict(given), name, None, None)
        assert example.examples, f"{name}: no example"
        said: list[str] = []
        runner.run(example, out=said.append)
        assert not said, "".join(said)
