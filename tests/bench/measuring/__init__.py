"""The questions of `benchmark.py`, the tools that measure them, and the output."""
