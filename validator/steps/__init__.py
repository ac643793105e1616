"""The pipeline, one step per module, from collecting a window to the final report.

A step reads top to bottom: load, decide (core), save, act. Every step is safe to run twice and to stop anywhere: what
it did is in the database, what it owes is a row in ``due`` with a wake time. Steps see the world through
``validator.ports`` only; ``Context`` carries the adapters. A step answers with a StepResult that Flower shows.

    due      beat's task: opens windows, and queues every row whose wake time has passed
    collect  window ended: pull, check, deduplicate; the own observation follows
    advance  one instance: load, apply, save, speak
    obtain   fetch a set or body that a statement names, by reconciliation
    settle   after a decision: outcome held, identities stored, bundle boundary found, late instance opened
    seal, upload, verify, attest, submit: the bundle's way to Arweave and the report's way to Polygon

Decided against (docs/decisions): one long task per window (0005), and events between tasks (0006).
"""
