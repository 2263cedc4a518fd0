"""Versions of the dataset in other people's formats, and cards that say what is in them."""
