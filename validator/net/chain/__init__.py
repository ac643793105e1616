"""Chain adapter: reads the contracts by block hash from several sources that are compared, and sends transactions.

    rpc.py       bounded JSON-RPC over HTTP: one batch to all sources at once, the majority's answer wins
    abi.py       calls, results, events and errors of our contracts as bytes (eth-abi)
    metadata.py  what strangers wrote on chain: node and stream metadata, parsed under fixed rules
    abilities.py what each source can do, for the operator
    blocks.py    head, finalised block, and B(t), the cut points
    reader.py    ``ChainReader``, the port ``Chain``
    transaction.py  EIP-1559 transactions as bytes
    sender.py    ``ChainSender``, the port ``ReportSender``; the only module that signs
    account.py   one account's calls from a command line: told with their cost, then sent

Comparing comes first: a block is what a majority of sources call by one hash, and all state is read at that hash
(EIP-1898), so two validators that name the same block have read the same state. With two sources both must agree;
while they do not, the answer is *not yet*. A source that errs, lags or lies is outvoted and shown in ``health``.

Decided against (docs/decisions): web3.py's providers, and its signer (0012). No process loads web3.
"""
