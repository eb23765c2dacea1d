"""The napari side: readers, docks, layouts. The only place that imports Qt, napari or vispy."""
