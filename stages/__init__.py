"""The pipeline's stages, a module each: validate, preprocess, pack, preview. dvc.yaml runs them."""
