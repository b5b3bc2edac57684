"""What a run may run short of (memory, disk, data, workers), each said in one line."""
