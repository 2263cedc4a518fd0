"""The one door to DVC and git: revisions, caches, lock files, remotes."""
