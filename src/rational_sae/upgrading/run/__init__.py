"""A job in its folder: checkpoints, log, result, status."""
