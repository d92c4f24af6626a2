"""What serving engines record and load: recordings in, placements out; knows files, no science."""
