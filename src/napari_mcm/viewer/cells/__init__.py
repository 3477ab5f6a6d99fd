"""Classify cells, in the dock *MAE & cells*."""
