"""Kernels without symbols or sections: what is left of both in the image itself, as an `Image` like any other."""
