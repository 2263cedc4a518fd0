"""What `python3 run.py` does after the environment is made: the first run, the local S3, quarantine, git hooks."""
