"""The race of remedies: who trains what, how models are judged and compared, and what is recommended."""
