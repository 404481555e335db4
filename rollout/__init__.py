"""Sampling from the policy: engines, filters, samplers."""
