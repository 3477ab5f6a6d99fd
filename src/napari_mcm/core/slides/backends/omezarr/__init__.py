"""Slides in OME-Zarr, on disk or remote."""
