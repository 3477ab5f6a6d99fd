"""What lies over the canvas, and its keys: overview map, magnification, list of keys."""
