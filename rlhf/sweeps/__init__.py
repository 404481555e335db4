"""Ablations: many runs of one config with differences, and what they show. The loops know nothing of it."""
