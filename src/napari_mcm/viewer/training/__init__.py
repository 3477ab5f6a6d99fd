"""What the docks that train share."""
