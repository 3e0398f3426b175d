"""Programs around ftpatch that are not part of it: they fetch and boot real kernels for the tests."""
