"""Support for long computations: jobs, threads, files, options and commands."""
