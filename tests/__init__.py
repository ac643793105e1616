"""Tests, and the programs that judge from outside: conformance, simulator, the independent verifier."""
