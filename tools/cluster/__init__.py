"""A Kubernetes cluster of one node on this machine, with real pods and enforced NetworkPolicies, without an engine."""
