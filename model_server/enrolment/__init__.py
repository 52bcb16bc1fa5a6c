"""Devices with keys of their own: the tokens that let them in, their public keys, and what they sign."""
