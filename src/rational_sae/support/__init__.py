"""What every room may use: files, signals, processes, text made safe, paths, progress."""
