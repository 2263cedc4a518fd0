"""Benchmarks, a module each: `python3 run.py -- python -m benchmarks.NAME`."""
