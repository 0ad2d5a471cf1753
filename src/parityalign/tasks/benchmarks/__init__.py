"""How benchmarks are read as they were released. One file is one benchmark, and defines it as `BENCHMARK`."""
