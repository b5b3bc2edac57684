"""The plans that are the model, and the data sets that they are derived for."""
