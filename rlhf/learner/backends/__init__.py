"""What holds the model and its optimizer: one file per way to spread them over devices."""
