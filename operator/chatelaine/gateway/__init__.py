"""The data plane beside the HSM: checks every operation's token, executes it, records it."""
