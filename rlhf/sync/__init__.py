"""Moving weights from the learner to the rollout engines."""
