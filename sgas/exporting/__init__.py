"""Networks as files that need nothing of ours."""
