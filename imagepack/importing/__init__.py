"""Datasets of other shapes, read for `python3 run.py import`: what is in them, and their images one after the other."""
