"""One module a verb; each has `main(family, argv) -> exit status`."""
