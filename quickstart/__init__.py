"""What `python3 run.py` does after the environment is made: first run, local S3, quarantine, memo, git hooks."""
