"""Widgets that know no dock."""
