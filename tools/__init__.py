"""Programs for tests, benchmarks and training, which are not installed."""
