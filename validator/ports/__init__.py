"""What the steps need of the world, as protocols. Adapters fulfil them; steps and adapters never import each other.

All calls are synchronous and thread-safe, have their own total deadline, and raise only errors of
``validator.protocol.errors``. A fake that fulfils a port passes the same port tests as the real adapter.
"""
