# The logic is in validator/setup; options go in ARGS="…", as in: make devnet ARGS="--windows 2".
# Status 130 is Ctrl-C: how one ends a network, and no error that make has to report.
.PHONY: help devnet quickstart test install simulate mutants
help devnet quickstart test install:
	@trap : INT; python3 -m validator.setup $@ $(ARGS) || { s=$$?; [ $$s -eq 130 ] || exit $$s; }
simulate:
	.venv/bin/python -m tests.simulator --seeds 10000 $(ARGS) && .venv/bin/python -m tests.simulator --mutations --seeds 500
mutants:
	.venv/bin/python -m tests.mutants $(ARGS)
