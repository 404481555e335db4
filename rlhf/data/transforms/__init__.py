"""One file per change to a supervised sample that is made anew each time it is drawn."""
