"""What was decided: outcomes, with their certificates, of instances that are decided here."""

from __future__ import annotations

from validator.ports.queue import NotYet
from validator.protocol.codec.outcome import decode_outcome
from validator.protocol.model import (
    Certified,
    InstanceId,
    Outcome,
)
from validator.steps.asking import Wanted
from validator.steps.context import Context


def load_outcome(context: Context, instance: InstanceId) -> Outcome | None:
    """The decided outcome of an instance; None while undecided or not here."""
    certificate = context.store.instances.load_certificate(instance)
    body = context.store.instances.load_body(certificate.value) if certificate is not None else None
    return decode_outcome(body) if body is not None else None


def require_outcome(context: Context, instance: InstanceId) -> Outcome:
    """The same of an instance that is decided here; one whose body was damaged is fetched from who signed it.

    Raises:
        NotYet: undecided, or not here again.
    """
    certificate = context.store.instances.load_certificate(instance)
    if certificate is None:
        raise NotYet(f"{instance} is not decided here")
    body = context.store.instances.load_body(certificate.value)
    if body is None:
        signers = context.identity.others(signer for signer, _ in certificate.signatures)
        context.asking.fetch_soon(instance, Wanted.VALUE, certificate.value, signers)
        raise NotYet(f"the outcome of {instance} is not here")
    return decode_outcome(body)


def load_certified(context: Context, instance: InstanceId) -> Certified:
    """A decided outcome with its certificate. Raises NotYet."""
    outcome = require_outcome(context, instance)
    certificate = context.store.instances.load_certificate(instance)
    assert certificate is not None  # a decision, once saved, stays
    return Certified(outcome, certificate)
