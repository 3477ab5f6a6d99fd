"""The dock *Similarity*: click on a patch, see where other tissue looks like it."""
