"""Programs for tests, benchmarks and training that are not installed."""
