"""Image files: find, open, decode and encode them, their structure, the manifest, zips."""
