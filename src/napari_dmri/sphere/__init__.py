"""Functions on the sphere: spherical harmonics, sampling."""
