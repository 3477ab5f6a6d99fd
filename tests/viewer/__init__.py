"""Tests of the viewer: the real napari, under a real X server."""
