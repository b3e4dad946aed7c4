"""What a person at home looks at: server-rendered, without scripts, in two languages. `pages` is the interface.

All that a bucket holds is untrusted text: templates escape it, and links are built of percent-encoded parts.
"""
