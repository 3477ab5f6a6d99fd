"""Dock widgets and the parts that they are built of."""
