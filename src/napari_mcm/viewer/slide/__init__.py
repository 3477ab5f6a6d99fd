"""The dock *Slide*: properties, tissue and patches."""
