"""What Mayfly decides, without effects: no files, no network, no clock, no processes."""
