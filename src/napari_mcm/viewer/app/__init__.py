"""Shared state of all docks: session, jobs, preferences and remembered values."""
