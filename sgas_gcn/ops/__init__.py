"""Candidate operations; one module for each kind of data, one table in each."""
