"""Training of the head alone, on features that stay."""
