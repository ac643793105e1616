"""What one machine can do: ``python -m benchmarks NAME``. One module per subject, one runner for all.

A shared machine is fast and slow by turns, so the cases of a subject run in turn within one minute, and what
counts is their ratio inside a round; absolute numbers are for the machine they were taken on.
"""
