"""The page of results, `docs/results.md`, by one command."""
