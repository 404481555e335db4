"""Where roles live: in this process, or as actors on a cluster."""
