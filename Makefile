# `make devnet`, `make test`: the logic is in validator/setup; options go in ARGS="…".
.PHONY: devnet test install
devnet test install:
	@python3 -m validator.setup $@ $(ARGS)
