"""First run: from a fresh checkout and one Python to the devnet or the tests.

Standard library only; imports nothing of ours, so it runs before anything is installed.

  __main__      picks an interpreter (3.11 to 3.13); old syntax, so that any Python 3 can say what is wrong
  command       devnet, test, ci-stages, install: what the words do
  environment   .venv, packages by hash, redis-server, anvil, Streamr's packages, and the stamp that makes the
                second start short
  binaries      where redis-server, anvil, node and npm are found; versions and SHA-256 of what is fetched
  stages        the test stages: limits, two at a time, logs, the closing table
  console       one line per step, one line per failure, children that do not outlive us

Decided against (docs/decisions): conda and docker (0019), a lock with addresses (0020), downloads of our own (0021).
"""
