"""A framework for RL post-training of language models with verifiable rewards."""
