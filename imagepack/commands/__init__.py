"""What `python3 run.py NAME` does, a module each."""
