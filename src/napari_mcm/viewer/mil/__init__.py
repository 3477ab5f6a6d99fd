"""The dock *MIL*: slide classifiers and their attention."""
