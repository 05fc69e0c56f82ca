"""The losses from features and classifier weight, without the N x K logits."""

from evenhand.losses.linear.functional import linear_cross_entropy, linear_nll, linear_rows

__all__ = ["linear_cross_entropy", "linear_nll", "linear_rows"]
