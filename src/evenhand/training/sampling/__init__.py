"""Draws at chosen class rates: pure functions of the position, and the samplers that hold them."""
