"""One file per loss formula."""
