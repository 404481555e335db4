"""What a person sees of a run: curves, tables, intervals."""
