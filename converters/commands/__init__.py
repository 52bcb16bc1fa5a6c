"""The commands of `edgeship-convert`, a module each: `add` declares its options, `run` does it."""
