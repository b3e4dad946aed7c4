"""A small site to scrape: quotes, reports, and a Misskey-like timeline. Everything in it is invented."""
