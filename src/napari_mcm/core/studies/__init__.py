"""Studies: many encoders or arms, several seeds, the same slides, one table."""
