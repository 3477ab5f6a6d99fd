"""The dock *Atlas*: clusters of patches and a 2-D map, linked to the slides."""
