"""All results of a data set beside each other: what they reached and what they cost."""
