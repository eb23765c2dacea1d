"""The docks, in the order of the work: Scan, SH fit, Harmonize, Deconvolve, Compare, Train."""
