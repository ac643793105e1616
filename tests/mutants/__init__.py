"""Planted mistakes in the shell, each with the test that notices it: ``python -m tests.mutants`` plants them all.

    planting.py   one mistake: a text of one function in place of another, put into the function object as it runs; the
                  simulator plants by it too
    session.py    one pytest session in this process, which runs named tests with and without a mistake
    shell.py      the table of mistakes in validator/steps

A text that is no longer there exactly once, or a test that no longer exists, is refused, so the table cannot rot; a
unit test looks at both in every run. Production code knows nothing of this.
"""
