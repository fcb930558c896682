"""Enforces NetworkPolicies (networking.k8s.io/v1) on one node by nftables: IPv4, every rule of the kind."""
