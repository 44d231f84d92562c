"""Cell states with all their outgoing edges as one function, forward and backward by hand."""
