"""Spherical-harmonic glyphs: a napari layer drawn by instancing on the graphics card."""
