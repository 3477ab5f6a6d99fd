"""Slides in DICOM files."""
