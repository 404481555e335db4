"""Curricula: which prompts come next, by what is known of them. A file per rule; weights of several are multiplied."""
