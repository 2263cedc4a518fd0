"""Two versions of a dataset side by side: what happened to the images, and whether it matters."""
