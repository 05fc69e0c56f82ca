"""The sigmoid losses, for multi-label targets: a law, functions and modules of their own."""
