"""One streaming tracker per file; each runs in a process of its own, driven by `benchmarks/stream.py`."""
