"""Learning curves: what results reached on how many training cases."""
