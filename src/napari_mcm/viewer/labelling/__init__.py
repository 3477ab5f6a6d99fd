"""The dock *Classes*: labels of patches, and the map of classes trained on them."""
