"""What the stages share: running as a command, worker processes, opening images, the manifest."""
