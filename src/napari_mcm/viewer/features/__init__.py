"""The dock *Features*: feature files and their extraction."""
