"""Components in whose processes something happens, at a moment that a config names."""
