"""Images to columns: pure, batched functions with nothing to train."""
