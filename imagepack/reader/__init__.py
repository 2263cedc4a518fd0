"""Read packs: the format, batches, shuffling, augmentation. Needs numpy, h5py and Pillow alone."""
