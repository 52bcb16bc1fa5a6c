"""The TUF repository: offline and online roles, keys of named people, and the one publisher."""
