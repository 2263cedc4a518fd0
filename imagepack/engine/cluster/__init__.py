"""The engine's workers on a Dask cluster: one side for each end."""
