"""Source against destination, frame by frame, and what differs mended; no Ray, and only a repair writes."""
