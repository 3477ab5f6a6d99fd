"""The dock *MAE & cells*: masked autoencoders."""
