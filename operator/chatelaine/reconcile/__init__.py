"""Pure decisions: a snapshot of the world in, a plan of idempotent actions out. One module a kind."""
