"""What `benchmark.py` measures, with what, and how it shows that."""
