"""Care for data: what training rows share with evaluation sets and with each other. Knows rows and texts, no model."""
