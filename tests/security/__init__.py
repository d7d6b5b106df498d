"""One test per threat of docs/security.md that has none elsewhere."""
