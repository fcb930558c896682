"""A laboratory on one machine: HSM hosts, an operator and workloads as real processes."""
