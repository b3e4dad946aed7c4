"""What follows from the history of a bucket, without effects: frozen data in, frozen data out."""
