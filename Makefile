# The logic is in validator/setup; options go in ARGS="…", as in: make devnet ARGS="--windows 2"
.PHONY: help devnet test install
help devnet test install:
	@python3 -m validator.setup $@ $(ARGS)
