"""Data from outside, checked before it is used."""
