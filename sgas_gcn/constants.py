"""The numbers that operations on points and graphs share, as in the authors' code."""

MOMENTUM = 0.1  # of running statistics
EPS = 1e-5  # added to a variance
LEAKY_SLOPE = 0.2
NORM_FLOOR = 1e-12  # smallest length that sage divides by
