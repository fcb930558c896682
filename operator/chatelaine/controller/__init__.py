"""Brings the world to what the pure rooms plan: queue, cache, leadership, attestation, gateways, executor."""
