"""Patching relocatable kernel modules: what their sites call, the edits, and the check of the result."""
