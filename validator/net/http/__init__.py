"""One HTTP floor under every neighbour: bounded bodies, total deadlines, checked URLs, one pace per source."""
