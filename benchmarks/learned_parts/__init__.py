"""The parts of `benchmarks/learned_context.py`."""
