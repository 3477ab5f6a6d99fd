"""The dock *Sections*: serial sections registered, linked, and annotated together."""
