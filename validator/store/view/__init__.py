"""The read side of the operator's screen: everything one validator knows, in a few queries over the reader engine.

Nothing here is asked of the network. Lists are bounded: the newest windows, and whatever older ones are unfinished.

``screen.SqlView`` is what the listener asks; status.py holds what it is answered with, and windows.py, bundles.py,
parties.py and readiness.py load it.
"""
