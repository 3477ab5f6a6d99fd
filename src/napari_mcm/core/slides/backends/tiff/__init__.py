"""Slides in TIFF files of all vendors."""
