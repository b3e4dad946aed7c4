"""The scrapers' kit, the demo site, and the three jobs, run as a release runs them."""
