"""Exact weighted means over micro-batches and ranks, and in Hugging Face's Trainer."""

from evenhand.losses.exact.means import WeightedAccumulation, exact_mean, expected_denominator
from evenhand.losses.exact.trainer import TrainerLoss

__all__ = ["TrainerLoss", "WeightedAccumulation", "exact_mean", "expected_denominator"]
