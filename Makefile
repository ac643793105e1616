# The logic is in validator/setup; options go in ARGS="…", as in: make devnet ARGS="--windows 2"
.PHONY: help devnet quickstart test install simulate mutants
help devnet quickstart test install:
	@python3 -m validator.setup $@ $(ARGS)
simulate:
	.venv/bin/python -m tests.simulator --seeds 10000 $(ARGS) && .venv/bin/python -m tests.simulator --mutations --seeds 500
mutants:
	.venv/bin/python -m tests.mutants $(ARGS)
