"""Processed images and packs: HDF5 shards and zips, written, and restored from what DVC's cache has of them."""
