"""One place of errors: each with the status that the command ends with, and what helps."""

from __future__ import annotations

import json

import pytest

import logstore
from logstore import cli, errors
from logstore.brokers import kind_of
from logstore.money import explained

BY_STATUS: dict[int, list[errors.Error]] = {
    1: [errors.Refused("bundle 1", "root", "another"), errors.BudgetSpent("spent"), errors.Denied("no", status=402)],
    2: [errors.Usage("--to: no time")],
    3: [
        errors.NotStored("not yet"),
        errors.Unreachable("nobody"),
        errors.UnknownOutcome("sent"),
        errors.Fault("nonsense"),
    ],
}
EACH = [(status, error) for status, those in BY_STATUS.items() for error in those]


@pytest.mark.parametrize(("status", "error"), EACH, ids=[type(error).__name__ for _, error in EACH])
def test_an_error_is_one_line_a_status_and_a_document(
    status: int, error: errors.Error, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_words: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "invoke", fail)
    assert errors.status_of(error) == status
    assert cli.main(["verify", "--json"]) == status
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert err == f"logstore: {said['error']}\n"
    assert (str(error) in err, said["status"]) == (True, status)
    assert said.get("remedy", "") == errors.remedy_of(error)


def test_every_error_of_the_list_is_reached_from_the_package() -> None:
    for name in ("BudgetSpent", "Denied", "Fault", "NotStored", "Refused", "Unreachable", "UnknownOutcome", "Usage"):
        assert issubclass(getattr(logstore.errors, name), logstore.errors.Error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, errors.Denied), (402, errors.Denied), (404, errors.Denied), (429, errors.Unreachable), (302, errors.Fault)],
)
def test_a_brokers_no_is_told_from_its_absence(status: int, kind: type[errors.Error]) -> None:
    assert kind_of(status) is kind


@pytest.mark.parametrize(
    ("fields", "kind"),
    [({"revert": "InsufficientBalance()"}, errors.Denied), ({"reason": "gas"}, errors.Denied), ({}, errors.Fault)],
)
def test_a_contracts_no_is_told_from_a_nodes_fault(fields: dict[str, str], kind: type[errors.Error]) -> None:
    error = explained(errors.Fault("no", **fields), "stake: ")
    assert type(error) is kind
    assert str(error).startswith("stake: no")
