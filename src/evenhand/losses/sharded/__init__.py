"""The softmax losses of class-sharded heads."""

from evenhand.losses.sharded.functional import sharded_cross_entropy, sharded_losses_by_row
from evenhand.losses.sharded.layout import ClassShard

__all__ = ["ClassShard", "sharded_cross_entropy", "sharded_losses_by_row"]
