"""Predictions out of files and arrays: npz, npy, safetensors, Parquet, Arrow, CSV. Nothing is ever unpickled."""

from evenhand.files.blocks import Block, Kind, Predictions
from evenhand.files.edges import Edges
from evenhand.files.opening import from_arrays, open_predictions
from evenhand.files.vectors import read_vector

__all__ = ["Block", "Edges", "Kind", "Predictions", "from_arrays", "open_predictions", "read_vector"]
