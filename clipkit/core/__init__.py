"""Ground of the library: arrays, files, caches, text, progress."""
