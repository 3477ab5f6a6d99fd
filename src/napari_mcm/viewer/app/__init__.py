"""What all docks share: the session, jobs, settings and what is remembered."""
