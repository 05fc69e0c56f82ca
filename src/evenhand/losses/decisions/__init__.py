"""What to do with the logits at test time: the decision rule that follows from a loss."""
