"""Two versions of the dataset side by side."""
