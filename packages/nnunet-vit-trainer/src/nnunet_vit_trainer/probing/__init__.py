"""Which frozen backbone tells the classes of a data set apart, before anything is trained."""
