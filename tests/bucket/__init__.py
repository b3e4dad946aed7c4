"""How all tests read and fill a bucket: only these modules know its keys, and the fields of entries and manifests."""
