"""Losses for unevenly frequent classes: one tested family, exact under every reduction. Needs torch.

    >>> import torch
    >>> from evenhand import losses
    >>> criterion = losses.build("logit-adjusted", counts=[900, 90, 10], tau=1.0)
    >>> loss = criterion(torch.zeros(2, 3), torch.tensor([0, 2]))

Names are imported on first use.
"""
