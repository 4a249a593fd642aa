"""Benchmarks: `make bench`. They measure and print; they never judge, and no test depends on them."""
