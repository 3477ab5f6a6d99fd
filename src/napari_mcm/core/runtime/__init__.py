"""How long work runs: jobs, threads, files, options and commands."""
