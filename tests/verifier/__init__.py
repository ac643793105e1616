"""The independent check of a network's run: did it keep its promises, by what outsiders can see?

``python -m tests.verifier --run DIR [--json FILE]`` reads the logs of publishers and brokers, the Arweave gateway and
the chain, none of the validators' databases. It imports nothing of the validator but its codec and its trees (and the
vocabulary these rest on), so a mistake in agreement, settlement or an adapter cannot hide itself here.

    DIR/run.json        chain_id, rpc_url, gateway_url, contracts {name: 0x…}, deployment_block, windows (of epoch 0),
                        validators [{name, address, wallet}], brokers [{name, address}], consumers [{address, staked}],
                        killed (a validator's name, or null)
    DIR/network.toml    the parameters that the run was started with
    DIR/logs/publisher/{published,forged}.jsonl, DIR/logs/<broker>/{deliveries,published}.jsonl
    DIR/collected.json  invalid_rejected {validator: {reason: count}}, statements {validator: [hex]},
                        killed {validator, windows_away, back_at_window, certificates} or null

What was collected from validators can only make the check fail. Each module checks one kind of promise:
``bundles`` (outcomes, certificates, roots), ``messages`` (complete, exact, once), ``uploads`` (paid once),
``reports`` (contract and signatures), ``payments`` (streams and consumers), ``collected`` (refusals, the killed one).
"""
