"""The softmax losses as modules, one file per family; all are named in :mod:`evenhand.losses.registry`."""
