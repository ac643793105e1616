"""The network on one machine: stand-ins for what surrounds validators, and the conductor that starts everything."""
