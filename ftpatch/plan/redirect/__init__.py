"""`redirect`: from functions and their replacements to a plan, for kernels and modules."""
