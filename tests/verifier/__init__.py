"""The independent check of a network's run: did it keep its promises, by what outsiders can see?

``python -m tests.verifier --run DIR [--json FILE]`` reads the logs of publishers and brokers, the Arweave gateway and
the chain, none of the validators' databases. It imports nothing of the validator but its codec and its trees (and the
vocabulary these rest on; how many signers are a quorum it counts itself as well), so a mistake in agreement, settlement
or an adapter cannot hide itself here.

    DIR/run.json        chain_id, rpc_url, gateway_url, contracts {name: 0x…}, deployment_block, windows (of epoch 0),
                        validators [{name, address, wallet}], brokers [{name, address}], consumers [{address, staked}],
                        killed (a validator's name, or null)
    DIR/network.toml    the parameters that the run was started with
    DIR/logs/publisher/{published,forged}.jsonl, DIR/logs/<broker>/{deliveries,published}.jsonl
    DIR/collected.json  invalid_rejected {validator: {reason: count}}, statements {validator: [hex]},
                        killed {validator, windows_away, back_at_window, killed_ms, back_ms, certificates} or null,
                        brokers_away [{broker, from_ms, to_ms}] and chain_away [{from_ms, to_ms}]: who was hurt on
                        purpose and when; may be left out
    DIR/observations.jsonl  {"statement", "body"} of each observation that outcomes used, canonical bytes in hex

What was collected from validators can only make the check fail. ``claims`` names every promise, and what nobody can
know; each module checks one kind: ``bundles`` (files, order, boundaries, configs, certificates), ``observations``
(who was heard, and the medians), ``scope`` (entries and budgets), ``contents`` (times, signatures, permissions,
equivocations; which the chain admits: ``admission``), ``messages`` (complete, exact, once, in time), ``uploads``
(paid once, at the gateway's price), ``reports`` (contract and signatures), ``payments`` (every line, by the
``account`` kept here), ``collected`` (refusals, the killed one). ``state`` is what the contracts held at a block.
"""
