"""The dock *Slide*: properties, tissue mask and patch grid of the active slide."""
