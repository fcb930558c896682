"""Benchmarks. `make bench` runs all, `make bench BENCH=name` one; each writes `build/bench/<name>.json`."""
