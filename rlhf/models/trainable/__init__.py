"""What of a model a learner changes: one file per choice."""
