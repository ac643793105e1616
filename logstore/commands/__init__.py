"""The words of the command line, one module per group. Each command parses, calls, and shows; imports are late."""
