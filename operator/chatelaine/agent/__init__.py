"""Evidence of a host, made for a nonce, and word of every change. One `Attester` protocol, several roots of trust."""
