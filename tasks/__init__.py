"""Celery wiring: the app, beat's schedule, one module per queue. No logic: a task loads the node and calls a step.

Ids in, a short summary out: Flower's columns are the operations screen. State lives in the database; a message only
says "look again", so every task is safe to run twice, and what Redis or a worker loses beat finds again.
"""
