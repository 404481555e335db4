"""`rlhf doctor`: whether this installation and machine can run what is asked of them, and what to do where not."""
