"""The dock *Fine-tune*: masked context modelling on your own slides."""
