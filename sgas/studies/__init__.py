"""Many runs and what they say together: conducted, gathered, compared."""
