"""A device's own key: made on it, enrolled once, and signing a short assertion for each thing that it sends."""
