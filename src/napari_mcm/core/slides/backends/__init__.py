"""Backends: one module, or a family of them, for each way to read a file."""
