"""`python -m tools.damage_images`: kernels without symbols, damaged, are answered rightly or refused in a line."""
