"""Write the pages of results, `docs/results.md` and `docs/results/`, by one command."""
