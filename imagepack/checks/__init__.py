"""What can be wrong with images, and how validate finds and reports it."""
