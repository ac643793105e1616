"""The world outside, bounded: chain nodes, Arweave gateways, brokers and peers, all over one HTTP floor (``http``).

Everything that comes from there is hostile until it was read within its limits of size, count and time, and parsed
into ``model`` types; errors of libraries become ours at this door.
"""
