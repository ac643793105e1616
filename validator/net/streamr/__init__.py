"""The Streamr network: the message bus through a Node program, and a loopback that stands for it.

  node/         the Node program and its lock: joins stream parts, hands over bytes, publishes bytes. No key, no chain,
                no check of any signature. Parts are joined at a pace, and messages shown to whom they concern: its
                joining.mjs and dispatch.mjs say why
  frames        what goes over the Unix socket between it and us
  inbox         what arrived and was not read yet: bounded, and what does not fit is counted
  bridge        the bus over that socket: connects anew and joins anew
  node_process  starts the Node program, sees its end, starts it again
  sharding      several bridges as one bus
  simulated     the same frames, or plain calls, without Node and without a network

Decided against: Node's own plugins (websocket, MQTT, HTTP), which hand over no signature; a Python implementation of a
protocol that moves; asking neighbours less often than every 10 s, which saves little and lets a part that was dropped
hear nothing for longer; naming each part's entry points, which saves most, and hides us from publishers who do not know
them.
"""
