"""What a person at home looks at: server-rendered, without scripts, in two languages.

All that a bucket holds is untrusted text: templates escape it, and links are built of percent-encoded parts.
"""
