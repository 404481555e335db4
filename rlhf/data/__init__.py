"""From rows and trajectories to packed batches."""
