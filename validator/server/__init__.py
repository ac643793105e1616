"""The two listeners of a validator: parse, call what does the work, answer.

peers.py is public and speaks to committee members only: signed requests, signed answers. operator.py shows and
measures, changes nothing, and listens on loopback unless told otherwise. They never share a port: what the public
may reach must not depend on a rule of a proxy.
"""
