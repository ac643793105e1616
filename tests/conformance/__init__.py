"""Conformance with the systems around: ``python -m tests.conformance NAME ARGUMENTS``.

One module per subject, each with ``main(arguments) -> exit status``.
"""
