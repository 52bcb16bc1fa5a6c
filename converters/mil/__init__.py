"""NumPy meanings of MIL operators, for `converters.coreml_reference`."""
