"""Maths of one scan: SH fit, tensor, RISH, masks, noise and quality."""
