"""What the Trainer does beside training, and what is kept of it."""
