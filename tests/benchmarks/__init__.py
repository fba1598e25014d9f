"""Each prints ratios of things measured within one run: `make bench`, or `python -m tests.benchmarks NAME`."""
