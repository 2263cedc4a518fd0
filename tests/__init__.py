"""Your tests: does this pipeline do what you think, with these params and these images?

    python3 run.py test            these, and the template's fast ones
    python3 run.py test tests      these alone

test_pipeline.py   the pipeline runs from end to end on a handful of your images, twice with the same result
test_fit.py        `fit` of stages/preprocess.py gives images of the size and mode in params.yaml
test_splits.py     each class has images in each split
test_params.py     params.yaml is valid
test_dvc_yaml.py   dvc.yaml agrees with the code

They are yours to edit, as models for your own: an update of the template merges its changes with yours. They need no
images of yours, no bucket and no network.
"""
