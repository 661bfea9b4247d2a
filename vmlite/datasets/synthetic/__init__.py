"""Generated data sets, which need no download: the defaults of the notebooks."""
