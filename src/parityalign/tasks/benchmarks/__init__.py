"""Readers of benchmarks as released. Each module is one benchmark and defines it as `BENCHMARK`."""
