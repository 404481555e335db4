"""One file per way to make rows of a dataset from scored samples."""
