"""Candidate operations, one file each, and the tables of the search spaces, `image` and
`nasbench201`.
"""
