"""The half of the dock *MAE & cells* that classifies cells."""
