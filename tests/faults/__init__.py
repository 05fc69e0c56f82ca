"""Planted faults: labelled cases that say whether the audit names the right cause."""
