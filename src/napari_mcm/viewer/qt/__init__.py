"""Qt widgets and helpers that are independent of any dock."""
