"""One file per task family: rows become prompts with gold answers."""
