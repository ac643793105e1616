"""Several gateways as one: the first good answer, a few that must agree, or everybody's at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from validator.net.arweave.gateway import Gateway
from validator.protocol.errors import ConfigError, RemoteFault, TransientError, UnknownOutcome, ValidatorError

T = TypeVar("T")


class Gateways:
    """In the order in which they are posted to."""

    def __init__(self, gateways: Sequence[Gateway]) -> None:
        if len({gateway.host for gateway in gateways}) != len(gateways):
            raise ConfigError("gateways: one host is named twice")
        self._gateways = tuple(gateways)

    def __iter__(self) -> Iterator[Gateway]:
        return iter(self._gateways)

    def __len__(self) -> int:
        return len(self._gateways)

    def close(self) -> None:
        for gateway in self._gateways:
            gateway.close()

    def first(self, ask: Callable[[Gateway], T], *, latest_first: bool = False, but_for: str = "") -> T:
        """The first good answer. Reading begins with another gateway than posting, where there is one.

        ``but_for``: a host that is not asked unless it is the only one.
        """
        errors: list[ValidatorError] = []
        others = [gateway for gateway in self._gateways if gateway.host != but_for] or list(self._gateways)
        for gateway in reversed(others) if latest_first else others:
            try:
                return ask(gateway)
            except ValidatorError as error:
                errors.append(_name_host(gateway, error))
        raise worst(errors)

    def gather(self, ask: Callable[[Gateway], T], wanted: int) -> list[T]:
        """Up to ``wanted`` good answers, at least one."""
        answers: list[T] = []
        errors: list[ValidatorError] = []
        for gateway in self._gateways:
            try:
                answers.append(ask(gateway))
            except ValidatorError as error:
                errors.append(_name_host(gateway, error))
            if len(answers) == wanted:
                break
        if not answers:
            raise worst(errors)
        return answers

    def ask_all(self, ask: Callable[[Gateway], T]) -> list[T | ValidatorError]:
        """Every gateway's answer or error, asked at the same time."""

        def attempt(gateway: Gateway) -> T | ValidatorError:
            try:
                return ask(gateway)
            except ValidatorError as error:
                return _name_host(gateway, error)

        if len(self._gateways) == 1:
            return [attempt(self._gateways[0])]
        with ThreadPoolExecutor(len(self._gateways), thread_name_prefix="gateways") as pool:
            return list(pool.map(attempt, self._gateways))


def _name_host(gateway: Gateway, error: ValidatorError) -> ValidatorError:
    """The same error, with the gateway's host in its text."""
    if gateway.host not in error.message:
        error.message = f"{gateway.host}: {error.message}"
    error.fields.setdefault("host", gateway.host)
    return error


def worst(errors: Sequence[ValidatorError]) -> ValidatorError:
    """One error for several gateways' failures: unknown before transient before refused, all texts in it."""
    text = "; ".join(error.message for error in errors)
    for kind in (UnknownOutcome, TransientError):
        if any(isinstance(error, kind) for error in errors):
            return kind(text, errors=tuple(errors))
    fields = {**errors[-1].fields, "errors": tuple(errors)}
    fields.pop("field", None)
    fields.pop("reason", None)
    return RemoteFault(text, **fields)
