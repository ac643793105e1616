"""What two implementations must agree on, byte for byte; a second one could be written from this package alone.

Canonical bytes and their hashes (``codec``, ``hashing``, ``merkle``), the agreement (``consensus``), who pays and who
earns (``settlement``), and the words all of it is said in (``model``, ``parameters``, ``errors``). Pure: values in,
values out. Nothing here imports anything of ours outside the package, nor a clock, a socket, a database, settings or a
logger: where one is wanted, the caller has the answer and passes it in.
"""
