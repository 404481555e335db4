"""One file per kind of example that a supervised stage learns from."""
