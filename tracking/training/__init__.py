"""Training: the embedded trainer, its data and its options."""
