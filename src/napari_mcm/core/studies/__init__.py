"""Whole studies: many encoders or arms on the same slides, one table."""
