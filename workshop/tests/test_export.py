"""`python3 run.py export`: each format read by the library that it is for, and compared with the pack."""
