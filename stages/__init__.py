"""The pipeline's stages, a module each: validate, preprocess, pack, preview. dvc.yaml runs them."""

import os

# Polars, which has yet to be imported, gives freed memory back at once: else a stage holds on to what it used once.
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0")
