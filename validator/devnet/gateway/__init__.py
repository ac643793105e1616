"""Arweave gateway of the development network: a node's and a gateway's routes over a small weave, on loopback.

    python -m validator.devnet.gateway --port-file FILE --data DIR [--mine-ms 500] [--log FILE] [--port 0]

    weave     the state: mempool, blocks, wallets, with a node's rules and texts; chunks is the data on disk
    routes    what nodes and gateways answer
    bundled   data items inside transactions; ans104 reads them
    index     GraphQL over both; graphql is as much of the language as look-ups use
    faults    rules by which requests go wrong
    controls  what the real network lacks: minting, mining, forgetting, counting
    requests  bodies and path parameters, bounded

Binds 127.0.0.1 and writes the port to the port file once it listens. Mines by itself every ``--mine-ms``; with 0
only on request. Answers and texts follow the reference node where it has a say, ar.io's gateway for /raw and /graphql.
"""
